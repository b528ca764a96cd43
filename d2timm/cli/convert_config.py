"""Convert a yaml config of detectron2_timm into a LazyConfig file.

    d2timm convert-config xcit_small_12_p8_224_fpn.yaml
    d2timm train --config-file xcit_small_12_p8_224_fpn.py --dry-run

The report says how each key was converted. Keys that could not be converted are also listed at the top of the
new file. If the old training had keys on its command line, pass them with --opts:

    d2timm convert-config botnet26t_256.yaml --opts MODEL.BACKBONE.NAME build_botnet26t_256_fpn_backbone
"""

from __future__ import annotations

import argparse
from pathlib import Path

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add = parser.add_argument
    add("old", type=Path, metavar="OLD.yaml", help="a config of detectron2_timm or of detectron2")
    add("out", type=Path, nargs="?", metavar="OUT.py", help="the file to write (default: OLD.py)")
    add("--opts", nargs="+", default=[], metavar=("KEY", "VALUE"), help="old keys and values in turn")


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    from ..convert.yacs.convert import convert_config

    out = options.out or options.old.with_suffix(".py")
    converted = convert_config(options.old, out, options.opts)
    print(f"{options.old} -> {out}")
    print(converted.report())
    return 0
