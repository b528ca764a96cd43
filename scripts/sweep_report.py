#!/usr/bin/env python3
"""Write and print the leaderboard of a sweep: the same as ``d2timm report``."""

import sys

from d2timm.cli import main

if __name__ == "__main__":
    sys.exit(main(["report", *sys.argv[1:]], prog="scripts/sweep_report.py"))
