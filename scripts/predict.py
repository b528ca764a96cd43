#!/usr/bin/env python3
"""Detect objects in images and videos with a trained detector.

    python scripts/predict.py --run output/demo photo.jpg --output detections
    python scripts/predict.py --run output/mine photos 'more/**/*.png' street.mp4 --output detections

Folders are searched with all that lies in them. The output folder gets a picture (.jpg) of each image, an
annotated video (.mp4) of each video, and predictions.json with all detections in COCO's format.
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
    add("inputs", nargs="+", metavar="IMAGE", help="images, videos, folders, and patterns in quotes")
    add("--run", required=True, type=Path, metavar="DIR", help="a run folder, or an exported .safetensors")
    add("--output", required=True, type=Path, metavar="DIR", help="a new folder, or one of earlier results")
    add("--weights", metavar="FILE", help="another checkpoint of the run, such as model_best.pth")
    add("--device", help="such as cuda or cpu; a GPU where there is one")
    add("--score-threshold", type=float, default=0.5, metavar="S", help="keep detections above it (0.5)")
    add("--batch-size", type=int, default=1, metavar="N", help="images at a time (1)")
    add("--no-pictures", dest="pictures", action="store_false", help="write predictions.json only")
    add("--features", action="store_true", help="draw feature maps of each level, and attention")
    add("--ids-from", type=Path, metavar="JSON", help="a COCO file whose image and category ids are used")
    return parser.parse_args(arguments)


def main() -> int:
    """Command line; returns the exit code, 1 if some inputs could not be read."""
    options = parse()
    # torch and detectron2 take seconds to import, which --help need not wait for
    from d2timm.errors import ConfigError
    from d2timm.noise import silence

    silence()
    from d2timm.predict import predict

    try:
        return predict(options)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
