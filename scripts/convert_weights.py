#!/usr/bin/env python3
"""Convert a published detection checkpoint for the detector of a recipe.

    python scripts/convert_weights.py mask_rcnn_swin_tiny_patch4_window7.pth swin.pth \\
        --recipe lazy_configs/mask_rcnn_swin_tiny_3x.py
    python scripts/lazyconfig_train.py --config-file lazy_configs/mask_rcnn_swin_tiny_3x.py --eval-only \\
        data.name=coco_2017 train.init_checkpoint=swin.pth

Which project a file is of is found from the names in it: XCiT, Swin and ConvNeXt of mmdet, ViTDet and
ResNets of detectron2 (.pkl, too), MAE's transformers. Each weight is accounted for: if one is lost, nothing
is written.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("source", metavar="SOURCE", type=Path, help=".pth, .pkl or .safetensors, as published")
    add("out", metavar="OUT", type=Path, help=".pth or .safetensors, for train.init_checkpoint")
    add("--recipe", required=True, metavar="FILE", type=Path, help="a .py config or a saved config.yaml")
    add("--parts", default="all", metavar="PART,…", help="all, or some: backbone, neck, roi_heads, …")
    add(
        "--new-classes",
        action="store_true",
        help="the recipe has other classes: leave out what depends on it",
    )
    add("--list", action="store_true", help="name each weight that is left over, not patterns of names")
    add("overrides", nargs="*", metavar="key=value", help="overrides of the recipe")
    return parser.parse_intermixed_args(arguments)


def main() -> int:
    """Command line; returns the exit code."""
    options = parse()
    # torch and detectron2 take seconds to import, which --help need not wait for
    from d2timm.errors import ConfigError
    from d2timm.noise import silence

    silence()
    from d2timm.convert import convert

    parts = [] if options.parts == "all" else options.parts.split(",")
    try:
        told = convert(
            options.source,
            options.out,
            options.recipe,
            options.overrides,
            parts=parts,
            new_classes=options.new_classes,
            every=options.list,
        )
    except ConfigError as error:
        for report in getattr(error, "__notes__", []):
            print(report)
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{told}\nwritten to {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
