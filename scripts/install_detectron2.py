#!/usr/bin/env python3
"""Install detectron2 into this Python environment: the same as ``d2timm install-detectron2``."""

import sys

from d2timm.cli import main

if __name__ == "__main__":
    sys.exit(main(["install-detectron2", *sys.argv[1:]], prog="scripts/install_detectron2.py"))
