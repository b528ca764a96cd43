#!/usr/bin/env python3
"""Detect objects with an exported .onnx file, without torch.

    d2timm run-onnx detector.onnx photo.jpg more/*.jpg --output pictures

This file, d2timm/cli/run_onnx.py, needs numpy, Pillow and onnxruntime only. A copy of it runs without d2timm:

    python run_onnx.py detector.onnx photo.jpg
"""

from __future__ import annotations

import argparse
import colorsys
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add = parser.add_argument
    add("model", type=Path, help="an exported detector, .onnx")
    add("images", nargs="+", type=Path, metavar="IMAGE")
    add("--output", type=Path, metavar="DIR", help="write annotated pictures to this folder")
    add("--score-threshold", type=float, default=0.5, metavar="S", help="show detections above it (0.5)")


def run(options: argparse.Namespace) -> int:
    """Run the command; returns 2 if the model cannot be used, 1 if an image cannot be read."""
    try:
        session, classes = open_model(options.model)
        if options.output:
            options.output.mkdir(parents=True, exist_ok=True)
    except ImportError as error:
        print(f"error: {error.name} is not installed: pip install onnxruntime pillow", file=sys.stderr)
        return 2
    except Exception as error:  # onnxruntime raises many kinds
        print(f"error: {options.model}: {_first_line(error)}", file=sys.stderr)
        return 2
    failed = 0
    taken: set[str] = set()
    for file in options.images:
        try:
            image = read(file)
            start = time.perf_counter()
            detections = detect(session, image, options.score_threshold)
        except Exception as error:  # of any kind: the other images are still processed
            failed += 1
            print(f"error: {file}: {_first_line(error)}", file=sys.stderr)
            continue
        seconds = time.perf_counter() - start
        print(f"{file}: {len(detections['scores'])} objects, {seconds:.2f} s")
        for box, label, score in _objects(detections):
            corners = ", ".join(f"{side:.1f}" for side in box)
            print(f"  {classes[label]:20s} {score:.3f}  [{corners}]")
        if options.output:
            draw(image, detections, classes).save(_free_name(options.output, file, taken))
    return 1 if failed else 0


def open_model(file: Path) -> tuple[Any, list[str]]:
    """Open a detector; returns the session and the names of its classes."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only; warnings are about sizes that are unknown before a run
    session = onnxruntime.InferenceSession(str(file), options)
    metadata = session.get_modelmeta().custom_metadata_map
    if "classes" not in metadata or [tensor.name for tensor in session.get_inputs()] != ["image"]:
        raise ValueError("not a detector written by d2timm export")
    return session, json.loads(metadata["classes"])


def read(file: Path) -> np.ndarray[Any, Any]:
    """Read an image as (H, W, 3) uint8 RGB, turned upright by its EXIF orientation."""
    import numpy as np
    from PIL import Image, ImageOps

    with Image.open(file) as opened:
        image = ImageOps.exif_transpose(opened)
    if image.mode.startswith("I;16"):  # Pillow would clip it to 255
        image = Image.fromarray(((np.asarray(image).astype(np.uint32) + 128) // 257).astype(np.uint8))
    elif image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return np.asarray(image.convert("RGB"))


def detect(session: Any, image: np.ndarray[Any, Any], threshold: float) -> dict[str, Any]:
    """Detect objects; returns output name -> array, for the objects whose score exceeds the threshold."""
    names = [output.name for output in session.get_outputs()]
    outputs = dict(zip(names, session.run(names, {"image": image}), strict=True))
    keep = outputs["scores"] > threshold
    return {name: values[keep] for name, values in outputs.items()}


def draw(image: np.ndarray[Any, Any], detections: Mapping[str, Any], classes: Sequence[str]) -> Image.Image:
    """Draw masks, boxes, class names and scores on an image."""
    import numpy as np
    from PIL import Image, ImageDraw

    pixels = image.astype(np.float32)
    colors = [
        tuple(int(255 * c) for c in colorsys.hsv_to_rgb(label * 0.618 % 1, 0.8, 1.0))
        for label in detections["classes"]
    ]
    for mask, color in zip(detections.get("masks", ()), colors, strict=False):
        pixels[mask] = 0.5 * pixels[mask] + 0.5 * np.array(color, np.float32)
    picture = Image.fromarray(pixels.astype(np.uint8))
    pen = ImageDraw.Draw(picture)
    line = max(2, max(picture.size) // 400)
    for (box, label, score), color in zip(_objects(detections), colors, strict=True):
        pen.rectangle([float(side) for side in box], outline=color, width=line)
        text, corner = f"{classes[label]} {score:.0%}", (float(box[0]) + line, float(box[1]) + line)
        pen.rectangle(pen.textbbox(corner, text), fill=(0, 0, 0))
        pen.text(corner, text, fill=color)
    return picture


def _objects(detections: Mapping[str, Any]) -> list[tuple[Any, int, float]]:
    """(box, class index, score) of each object."""
    return list(zip(detections["boxes"], detections["classes"], detections["scores"], strict=True))


def _free_name(folder: Path, image: Path, taken: set[str]) -> Path:
    """The path for the picture of an image; names in ``taken``, to which it is added, are not used again."""
    name, number = f"{image.stem}.png", 2
    while name in taken:
        name, number = f"{image.stem}_{number}.png", number + 1
    taken.add(name)
    return folder / name


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser)
    return run(parser.parse_args())


if __name__ == "__main__":
    sys.exit(_main())
