"""Write and print the leaderboard of a sweep, at any time.

    d2timm report outputs/sweep
    d2timm report outputs/sweep --json

It writes leaderboard.md, leaderboard.csv, leaderboard.json and pareto.png into the folder of the sweep.
"""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path

from ..errors import ConfigError

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add = parser.add_argument
    add("sweep", metavar="DIR", type=Path, help="the folder that holds the run folders")
    add("--json", action="store_true", help="print JSON")


def run(options: argparse.Namespace) -> int:
    """Run the command; failed runs do not change its exit code."""
    from ..report.entries import make_entries
    from ..report.leaderboard import write_leaderboard
    from ..report.tables import as_json, summary
    from ..runs.status import read_runs

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # some terminals lack the characters of a name
    entries = make_entries(read_runs(options.sweep))
    print(as_json(entries) if options.json else summary(entries) + "\n", end="")
    try:
        write_leaderboard(options.sweep)
    except OSError as error:
        raise ConfigError(f"the leaderboard of {options.sweep} cannot be written: {error}") from None
    return 0
