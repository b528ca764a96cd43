"""Write and print the leaderboard of a sweep, at any time; write or serve its page.

    d2timm report outputs/sweep
    d2timm report outputs/sweep --json
    d2timm report outputs/sweep --serve

It writes leaderboard.md, leaderboard.csv, leaderboard.json, pareto.png and report.html into the folder of the
sweep. report.html is a page with everything that is known about the runs, and opens without a network. DIR
may also be the folder of a choice or of a single run, which receives the page alone.
"""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path

from ..errors import ConfigError

__all__ = ["add_arguments", "run"]

PORT = 8642


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add = parser.add_argument
    add("folder", metavar="DIR", type=Path, help="a folder that holds run folders, or a run folder")
    add("--json", action="store_true", help="print JSON")
    add("--serve", action="store_true", help="show the page in browsers of this machine; it follows the runs")
    add("--port", type=int, help=f"for --serve; 0: any that is free (default: {PORT})")


def run(options: argparse.Namespace) -> int:
    """Run the command; failed runs do not change its exit code."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # some terminals lack the characters of a name
    if options.serve and options.json:
        raise ConfigError("--serve and --json: leave one of them out")
    if options.port is not None and not options.serve:
        raise ConfigError(f"--port {options.port} needs --serve")
    if options.serve:
        from ..report.page.serve import serve

        serve(options.folder, PORT if options.port is None else options.port)
        return 0
    from ..report.page.source import open_source
    from ..report.summaries import print_text

    source = open_source(options.folder)
    print(print_text(source, options.json), end="")
    try:
        if source.choice or source.is_run:
            from ..report.page.write import write_page

            write_page(options.folder)
        else:
            from ..report.leaderboard import write_leaderboard

            write_leaderboard(options.folder)
    except OSError as error:
        raise ConfigError(f"the report of {options.folder} cannot be written: {error}") from None
    return 0
