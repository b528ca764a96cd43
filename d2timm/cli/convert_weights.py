r"""Convert a published detection checkpoint for the detector of a recipe.

    d2timm convert-weights mask_rcnn_swin_tiny_patch4_window7.pth swin.pth \
        --recipe mask_rcnn_swin_tiny_3x.py
    d2timm train --config-file mask_rcnn_swin_tiny_3x.py --eval-only \
        data.name=coco_2017 train.init_checkpoint=swin.pth

The names of the weights show which project a file comes from: XCiT, Swin or ConvNeXt of mmdet, ViTDet or
ResNets of detectron2 (.pkl as well), or transformers of MAE. The report accounts for every weight; if one
would be lost, nothing is written.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from .arguments import add_trust

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add_trust(parser)
    add = parser.add_argument
    add("source", metavar="SOURCE", type=Path, help="the published file: .pth, .pkl or .safetensors")
    add("out", metavar="OUT", type=Path, help="the file for train.init_checkpoint: .pth or .safetensors")
    add("--recipe", required=True, metavar="FILE", help="a .py config or a saved config.yaml")
    add("--parts", default="all", metavar="PART,…", help="all, or some of backbone, neck, roi_heads, …")
    add("--new-classes", action="store_true", help="leave out weights that depend on the number of classes")
    add("--list", action="store_true", help="list every weight in the report instead of patterns of names")
    add("overrides", nargs="*", metavar="key=value", help="overrides of the recipe")


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    from ..config.lazy import find_config
    from ..convert.weights.convert import convert_weights

    report = convert_weights(
        options.source,
        options.out,
        find_config(options.recipe),
        options.overrides,
        parts=[] if options.parts == "all" else options.parts.split(","),
        new_classes=options.new_classes,
        every=options.list,
    )
    print(f"{report}\nwritten to {options.out}")
    return 0
