"""Write a trained detector to a file that needs none of this package.

    d2timm export --run output --output detector.onnx
    d2timm export --run output --output detector.pt2 --image photo.jpg
    d2timm export --run output --output weights.safetensors
    d2timm export --run output --output backbone.onnx --part backbone

The suffix of the output is its format: .onnx (d2timm run-onnx runs it without torch), .pt2 (torch.export) or
.safetensors (weights with the config and the class names, which opens like a run folder). A detector takes an
image (H, W, 3) uint8 RGB and returns boxes, classes, scores and masks in its pixels.
"""

from __future__ import annotations

import argparse

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add = parser.add_argument
    add("--run", required=True, metavar="DIR", help="a run folder, or an exported .safetensors")
    add("--output", required=True, metavar="FILE", help="ends in .onnx, .pt2 or .safetensors")
    add("--weights", metavar="FILE", help="another checkpoint of the run, such as model_best.pth")
    add("--part", default="detector", metavar="PART", help="detector, or backbone (timm's alone, .onnx)")
    add("--score-threshold", type=float, metavar="S", help="keep detections above it (the config's)")
    add("--size", type=image_size, metavar="HxW", help="take images of this size only (any size)")
    add("--image", nargs="+", default=[], metavar="FILE", help="images to verify the file on (noise)")


def image_size(text: str) -> tuple[int, int]:
    """``480x640``: height and width."""
    height, width = (int(side) for side in text.lower().split("x"))
    return height, width


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    from ..utils.quiet import silence

    silence()
    from ..export.export import export_run

    lines = export_run(
        options.run,
        options.output,
        weights=options.weights,
        part=options.part,
        score_threshold=options.score_threshold,
        size=options.size,
        images=options.image,
    )
    print(f"{options.output}, compared with the {options.part}:")
    print("\n".join(f"  {line}" for line in lines))
    return 0
