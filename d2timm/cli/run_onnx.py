#!/usr/bin/env python3
"""Detect objects with a file of d2timm export, without torch.

    d2timm run-onnx detector.onnx photo.jpg more/*.jpg --output pictures

It needs numpy, Pillow and onnxruntime, and nothing else of this package: d2timm/cli/run_onnx.py can be copied
next to the exported file and run by itself.
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
    add("model", type=Path, help="a detector as .onnx")
    add("images", nargs="+", type=Path, metavar="IMAGE")
    add("--output", type=Path, metavar="DIR", help="write pictures there")
    add("--score-threshold", type=float, default=0.5, metavar="S", help="show detections above it (0.5)")


def read(file: Path) -> np.ndarray[Any, Any]:
    """(H, W, 3) uint8 RGB, upright: cameras note in EXIF how they were held."""
    import numpy as np
    from PIL import Image, ImageOps

    with Image.open(file) as opened:
        image = ImageOps.exif_transpose(opened)
    if image.mode.startswith("I;16"):  # which Pillow would cut off at 255
        image = Image.fromarray(((np.asarray(image).astype(np.uint32) + 128) // 257).astype(np.uint8))
    elif image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return np.asarray(image.convert("RGB"))


def open_model(file: Path) -> tuple[Any, list[str]]:
    """The session and the names of its classes."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # sizes that are known only when it runs are no news
    session = onnxruntime.InferenceSession(str(file), options)
    metadata = session.get_modelmeta().custom_metadata_map
    if "classes" not in metadata or [given.name for given in session.get_inputs()] != ["image"]:
        raise ValueError("not a detector that d2timm export wrote")
    return session, json.loads(metadata["classes"])


def detect(session: Any, image: np.ndarray[Any, Any], threshold: float) -> dict[str, Any]:
    """Name of output -> array, of the objects that are surer than the threshold."""
    names = [output.name for output in session.get_outputs()]
    found = dict(zip(names, session.run(names, {"image": image}), strict=True))
    keep = found["scores"] > threshold
    return {name: values[keep] for name, values in found.items()}


def draw(image: np.ndarray[Any, Any], found: Mapping[str, Any], classes: Sequence[str]) -> Image.Image:
    """A picture with masks, boxes, names and scores."""
    import numpy as np
    from PIL import Image, ImageDraw

    pixels = image.astype(np.float32)
    colors = [
        tuple(int(255 * c) for c in colorsys.hsv_to_rgb(label * 0.618 % 1, 0.8, 1.0))
        for label in found["classes"]
    ]
    labels = [
        f"{classes[label]} {score:.0%}"
        for label, score in zip(found["classes"], found["scores"], strict=True)
    ]
    for mask, color in zip(found.get("masks", ()), colors, strict=False):
        pixels[mask] = 0.5 * pixels[mask] + 0.5 * np.array(color, np.float32)
    picture = Image.fromarray(pixels.astype(np.uint8))
    pen = ImageDraw.Draw(picture)
    line = max(2, max(picture.size) // 400)
    for box, label, color in zip(found["boxes"], labels, colors, strict=True):
        pen.rectangle([float(side) for side in box], outline=color, width=line)
        at = (float(box[0]) + line, float(box[1]) + line)
        pen.rectangle(pen.textbbox(at, label), fill=(0, 0, 0))
        pen.text(at, label, fill=color)
    return picture


def free_name(folder: Path, image: Path, taken: set[str]) -> Path:
    """A name for the picture of an image, another for each image."""
    name, number = f"{image.stem}.png", 2
    while name in taken:
        name, number = f"{image.stem}_{number}.png", number + 1
    taken.add(name)
    return folder / name


def run(options: argparse.Namespace) -> int:
    """Run the command; returns 2 if the model cannot be used, 1 if an image cannot."""
    try:
        session, classes = open_model(options.model)
        if options.output:
            options.output.mkdir(parents=True, exist_ok=True)
    except ImportError as error:
        print(f"error: {error.name} is not installed: pip install onnxruntime pillow", file=sys.stderr)
        return 2
    except Exception as error:  # onnxruntime has many kinds
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        print(f"error: {options.model}: {reason}", file=sys.stderr)
        return 2
    failed = 0
    taken: set[str] = set()
    for file in options.images:
        try:
            image = read(file)
            start = time.perf_counter()
            found = detect(session, image, options.score_threshold)
        except Exception as error:  # of whatever kind, the other images are still to be seen
            failed += 1
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            print(f"error: {file}: {reason}", file=sys.stderr)
            continue
        seconds = time.perf_counter() - start
        print(f"{file}: {len(found['scores'])} objects, {seconds:.2f} s")
        for box, label, score in zip(found["boxes"], found["classes"], found["scores"], strict=True):
            corners = ", ".join(f"{side:.1f}" for side in box)
            print(f"  {classes[label]:20s} {score:.3f}  [{corners}]")
        if options.output:
            draw(image, found, classes).save(free_name(options.output, file, taken))
    return 1 if failed else 0


def _main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser)
    return run(parser.parse_args())


if __name__ == "__main__":
    sys.exit(_main())
