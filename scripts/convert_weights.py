#!/usr/bin/env python3
"""Convert a published detection checkpoint: the same as ``d2timm convert-weights``."""

import sys

from d2timm.cli import main

if __name__ == "__main__":
    sys.exit(main(["convert-weights", *sys.argv[1:]], prog="scripts/convert_weights.py"))
