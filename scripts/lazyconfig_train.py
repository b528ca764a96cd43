#!/usr/bin/env python3
"""Train and evaluate a detector from a LazyConfig file: the same as ``d2timm train``."""

import sys

from d2timm.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]], prog="scripts/lazyconfig_train.py"))
