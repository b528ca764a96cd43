#!/usr/bin/env python3
"""Train a detector composed by Hydra, or sweep over many: the same as ``d2timm sweep``."""

import sys

from d2timm.cli import main

if __name__ == "__main__":
    sys.exit(main(["sweep", *sys.argv[1:]], prog="scripts/hydra_train.py"))
