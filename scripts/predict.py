#!/usr/bin/env python3
"""Detect objects in images and videos: the same as ``d2timm predict``."""

import sys

from d2timm.cli import main

if __name__ == "__main__":
    sys.exit(main(["predict", *sys.argv[1:]], prog="scripts/predict.py"))
