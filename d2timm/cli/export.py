"""Write a trained detector to a file that can be used without this package.

    d2timm export --run output --output detector.onnx
    d2timm export --run output --output detector.pt2 --image photo.jpg
    d2timm export --run output --output weights.safetensors
    d2timm export --run output --output backbone.onnx --part backbone

The suffix of the output selects the format: .onnx (for d2timm run-onnx, without torch), .pt2 (torch.export)
or .safetensors (weights with the config and the class names, which can be opened like a run folder). A
detector takes an image (H, W, 3) of uint8 RGB and returns boxes, classes, scores and masks in its pixels.
"""

from __future__ import annotations

import argparse

from .arguments import add_trust, image_size

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add_trust(parser)
    add = parser.add_argument
    add("--run", required=True, metavar="DIR", help="a run folder, or an exported .safetensors")
    add("--output", required=True, metavar="FILE", help="the file to write: .onnx, .pt2 or .safetensors")
    add("--weights", metavar="FILE", help="another checkpoint of the run, such as model_best.pth")
    add("--part", default="detector", metavar="PART", help="detector (default), or backbone (timm's, .onnx)")
    add("--score-threshold", type=float, metavar="S", help="keep detections above it (default: the config's)")
    add("--size", type=image_size, metavar="HxW", help="accept images of this size only (default: any)")
    add("--image", nargs="+", default=[], metavar="FILE", help="verify the file on images instead of noise")


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    from ..utils.imports import import_quickly

    import_quickly("d2timm.export.export")
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
