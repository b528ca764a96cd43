#!/usr/bin/env python3
"""Write a trained detector to a file: the same as ``d2timm export``."""

import sys

from d2timm.cli import main

if __name__ == "__main__":
    sys.exit(main(["export", *sys.argv[1:]], prog="scripts/export.py"))
