#!/usr/bin/env python3
"""Convert a yaml config of detectron2_timm: the same as ``d2timm convert-config``."""

import sys

from d2timm.cli import main

if __name__ == "__main__":
    sys.exit(main(["convert-config", *sys.argv[1:]], prog="scripts/convert_config.py"))
