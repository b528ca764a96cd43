#!/usr/bin/env python3
"""Check that every timm model is a backbone, and write the zoo table and docs/zoo.md.

    python scripts/check_zoo.py                     # all models, on the meta device
    python scripts/check_zoo.py --real              # the smallest of each module, on the CPU, with gradients
    python scripts/check_zoo.py --models 'vit_*'    # some models; nothing is written

These are the tests in tests/backbone/test_zoo.py, run by pytest on several cores.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1] / "tests" / "backbone" / "test_zoo.py"


def main() -> int:
    """Run the command line; returns pytest's exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", metavar="PATTERN", help="some models only, such as 'convnext*'")
    parser.add_argument("--real", action="store_true", help="forward and backward passes on the CPU")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), metavar="N", help="processes (cores)")
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # each process has one core
    test = "test_model_on_cpu" if options.real else "test_model_on_meta"
    arguments = [f"{TESTS}::{test}", f"--zoo={options.models or '*'}", f"--numprocesses={options.jobs}"]
    if not options.models and not options.real:
        arguments.append("--write-zoo")
    return int(pytest.main([*arguments, "--dist=load"]))


if __name__ == "__main__":
    sys.exit(main())
