#!/usr/bin/env python3
"""Tell which run of a sweep is the best, at any time, also while its jobs train.

    python scripts/sweep_report.py outputs/sweep
    python scripts/sweep_report.py outputs/sweep --json

Writes leaderboard.md, leaderboard.csv, leaderboard.json and pareto.png into that folder.
"""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("sweep", metavar="DIR", type=Path, help="the folder that holds a run folder a job")
    add("--json", action="store_true", help="print JSON")
    return parser.parse_args(arguments)


def main() -> int:
    """Command line; returns the exit code, which runs that failed do not change."""
    options = parse()
    # matplotlib takes its time to import, which --help need not wait for
    from d2timm.errors import ConfigError
    from d2timm.report import report
    from d2timm.report.entries import leaderboard
    from d2timm.report.runs import read_runs
    from d2timm.report.tables import as_json, summary

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names hold what a terminal may not know
    try:
        entries = leaderboard(read_runs(options.sweep))
        print(as_json(entries) if options.json else summary(entries) + "\n", end="")
        report(options.sweep)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: the report on {options.sweep} cannot be written: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
