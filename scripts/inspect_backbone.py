#!/usr/bin/env python3
"""Describe a timm model as a backbone, or list models: the same as ``d2timm inspect``."""

import sys

from d2timm.cli import main

if __name__ == "__main__":
    sys.exit(main(["inspect", *sys.argv[1:]], prog="scripts/inspect_backbone.py"))
