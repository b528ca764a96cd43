"""Detect objects in images and videos with a trained detector.

    d2timm predict --run output/demo photo.jpg --output detections
    d2timm predict --run output/mine photos 'more/**/*.png' street.mp4 --output detections

Folders are searched with their sub-folders. The output folder receives a picture (.jpg) of each image, an
annotated video (.mp4) of each video, and predictions.json with all detections in COCO format.
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
    add("inputs", nargs="+", metavar="IMAGE", help="images, videos, folders, or patterns in quotes")
    add("--run", required=True, type=Path, metavar="DIR", help="a run folder, or an exported .safetensors")
    add("--output", required=True, type=Path, metavar="DIR", help="a new folder, or one with earlier results")
    add("--weights", metavar="FILE", help="another checkpoint of the run, such as model_best.pth")
    add("--device", help="such as cuda or cpu (default: a GPU if there is one)")
    add("--score-threshold", type=float, default=0.5, metavar="S", help="keep detections above it (0.5)")
    add("--batch-size", type=int, default=1, metavar="N", help="images in a forward pass (1)")
    add("--no-pictures", dest="pictures", action="store_false", help="write predictions.json only")
    add("--features", action="store_true", help="draw the feature maps of each level, and attention")
    add("--max-pixels", type=int, metavar="N", help="limit for large images (default: as in training, 2**30)")
    add("--channels-last", action="store_true", help="compute in the memory format NHWC")
    add("--compile", action="store_true", help="compile backbone and neck, which pays for many images")
    add("--ids-from", type=Path, metavar="JSON", help="a COCO file whose image and category ids are used")


def run(options: argparse.Namespace) -> int:
    """Run the command; returns 1 if some inputs could not be read."""
    from ..utils.imports import import_quickly

    import_quickly("d2timm.inference.predict")
    from ..inference.predict import predict

    return predict(**vars(options))
