#!/usr/bin/env python3
"""Detect objects with an exported .onnx file: the same as ``d2timm run-onnx``."""

import sys

from d2timm.cli import main

if __name__ == "__main__":
    sys.exit(main(["run-onnx", *sys.argv[1:]], prog="scripts/run_onnx.py"))
