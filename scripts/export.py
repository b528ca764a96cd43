#!/usr/bin/env python3
"""Write a trained detector to a file that needs none of this package.

    python scripts/export.py --run output --output detector.onnx
    python scripts/export.py --run output --output detector.pt2 --image photo.jpg
    python scripts/export.py --run output --output weights.safetensors
    python scripts/export.py --run output --output backbone.onnx --part backbone

The suffix of the output is its format: .onnx (also for scripts/run_onnx.py, without torch), .pt2
(torch.export), .safetensors (weights with the config and the class names, to be opened as a run).
A detector takes an image (H, W, 3) uint8 RGB and gives boxes, classes, scores and masks in its pixels.
"""

from __future__ import annotations

import argparse
import sys


def image_size(text: str) -> tuple[int, int]:
    """``480x640``: height and width."""
    height, width = (int(side) for side in text.lower().split("x"))
    return height, width


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--run", required=True, metavar="DIR", help="folder of a run, or a .safetensors file of one")
    add("--output", required=True, metavar="FILE", help="ends in .onnx, .pt2 or .safetensors")
    add("--weights", metavar="FILE", help="a checkpoint of the run, such as model_best.pth")
    add("--part", default="detector", metavar="PART", help="detector, or backbone (timm's alone, .onnx)")
    add("--score-threshold", type=float, metavar="S", help="leave out what is less sure; else as the config")
    add("--size", type=image_size, metavar="HxW", help="take images of this size only; else of any size")
    add("--image", nargs="+", default=[], metavar="FILE", help="images to compare on; else noise")
    return parser.parse_args(arguments)


def main() -> int:
    """Command line; returns the exit code."""
    options = parse()
    # torch and detectron2 take seconds to import, which --help need not wait for
    from d2timm.errors import ConfigError
    from d2timm.noise import silence

    silence()
    from d2timm.export import export_run

    try:
        lines = export_run(
            options.run,
            options.output,
            weights=options.weights,
            part=options.part,
            score_threshold=options.score_threshold,
            size=options.size,
            images=options.image,
        )
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{options.output}, compared with the {options.part}:")
    print("\n".join(f"  {line}" for line in lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
