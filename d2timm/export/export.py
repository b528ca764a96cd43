"""``scripts/export.py``: a trained detector as a file that needs none of this package."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from ..config import lazy as config
from ..errors import ConfigError
from ..inference.trained import Trained, open_run
from ..utils.files import atomic_write
from ..utils.images import Picture, read_image
from ..utils.sizes import Size
from .formats import Runner, check_packages, open_program, save_program, trace
from .program import Detector, NormalizedBackbone
from .verify import Difference, compare, find_objects

__all__ = ["FORMATS", "PARTS", "export_run"]

FORMATS = (".pt2", ".onnx", ".safetensors")
PARTS = ("detector", "backbone")

NOISE = ((240, 320), (301, 200))  # (height, width) of the pictures that a file is tried on
# A file may differ from the detector by as much: pixels, probabilities, share of mask pixels, and share of
# the largest feature; the order of sums differs, which is less by far
BOXES, SCORES, MASKS, FEATURES = 0.1, 1e-3, 1e-2, 1e-3


def export_run(
    run: str | Path,
    output: str | Path,
    *,
    weights: str | None = None,
    part: str = "detector",
    score_threshold: float | None = None,
    size: Size | None = None,
    images: Sequence[str | Path] = (),
) -> list[str]:
    """Write the detector of a run, or its backbone, to a file, and hold the file against the detector.

    Args:
        run: the folder of a run, or merged weights (.safetensors).
        output: the file; its suffix is the format, one of ``FORMATS``.
        weights: as in ``open_run``.
        part: ``detector``, or ``backbone``: timm's alone, to ONNX.
        score_threshold: detections that are not above it are left out, 0 to 1; None: as the config has it.
        size: (height, width) in pixels of the only images that the file is to take; None: of any.
        images: files of images that the two are compared on; none: noise.

    Returns:
        How far they are apart, a line an image.

    Raises:
        ConfigError: what cannot be exported, or a file that does not agree, which is not left behind.
    """
    output = Path(output)
    _check(output, part, score_threshold, size, images)
    trained = open_run(run, weights, "cpu")
    if output.suffix == ".safetensors":
        return _write_weights(trained, output)
    if part == "backbone":
        return _write_backbone(trained, output, size)
    return _write_detector(trained, output, score_threshold, size, images)


def _check(
    output: Path,
    part: str,
    score_threshold: float | None,
    size: Size | None,
    images: Sequence[str | Path],
) -> None:
    """Raise ConfigError for what can be known to be wrong before anything is read."""
    if output.suffix not in FORMATS:
        raise ConfigError(f"--output {output}: its suffix is the format, one of {', '.join(FORMATS)}")
    if output.is_dir() or not output.parent.is_dir():
        raise ConfigError(f"--output {output}: a file in a folder that exists is needed")
    if part not in PARTS:
        raise ConfigError(f"--part {part}: one of {', '.join(PARTS)}")
    if part == "backbone" and output.suffix != ".onnx":
        raise ConfigError(f"--part backbone: it is exported to .onnx, not to {output.suffix}")
    if score_threshold is not None and not 0 <= score_threshold < 1:
        raise ConfigError(f"--score-threshold {score_threshold}: at least 0 and less than 1")
    if output.suffix == ".safetensors" and (size or score_threshold is not None or images):
        raise ConfigError("--output .safetensors: weights have no --size, --score-threshold or --image")
    if size and min(size) < 2:
        raise ConfigError(f"--size {size[0]}x{size[1]}: at least 2 pixels a side")
    for image in images:
        if not Path(image).is_file():
            raise ConfigError(f"--image {image}: no such file")
    check_packages(output.suffix)


def _metadata(trained: Trained) -> dict[str, str]:
    """What a file says of itself, whatever its format."""
    return {
        "config": config.to_yaml(trained.cfg),
        "labels": json.dumps(trained.labels),
        "classes": json.dumps(trained.labels["classes"]),
    }


def _write_weights(trained: Trained, output: Path) -> list[str]:
    state = {name: x.contiguous().clone() for name, x in trained.model.state_dict().items()}
    with atomic_write(output) as partial:
        save_file(state, partial, {"format": "pt", **_metadata(trained)})
        again = load_file(partial)
        if again.keys() != state.keys() or not all(torch.equal(again[name], state[name]) for name in state):
            raise ConfigError(f"{output}: the file does not agree with the detector")
    numbers = sum(x.numel() for x in state.values())
    return [f"{len(state)} tensors, {numbers / 1e6:.1f} M numbers, all as in {trained.weights}"]


def _write_backbone(trained: Trained, output: Path, size: Size | None) -> list[str]:
    model: Any = trained.model
    backbone = model.backbone.bottom_up
    program = NormalizedBackbone(backbone).eval()
    strides = (shape.stride for shape in backbone.output_shape().values())
    multiple = math.lcm(*strides, backbone.spec.input_spec.multiple)
    sizes = [size] if size else [(9 * multiple, 11 * multiple), (4 * multiple, 3 * multiple)]
    trials = [torch.randn(2, backbone.spec.channels, *shape) for shape in sizes]
    told = {**_metadata(trained), "model_name": backbone.spec.model_name, "multiple": str(multiple)}
    lines = []
    with atomic_write(output) as partial:
        traced = trace(program, trials[0], {} if size else {0: 1, 2: multiple, 3: multiple})
        save_program(traced, partial, output.suffix, ["images"], program.output_names, told)
        run = open_program(partial, output.suffix)
        for x in trials:
            with torch.no_grad():
                expected = program(x)
            pairs = zip(expected, run(x), strict=True)
            far = max(float((a - b).abs().max() / a.abs().max()) for a, b in pairs)
            lines.append(
                f"{x.shape[2]}x{x.shape[3]}: {len(expected)} levels, within {far:.2g} of the largest value"
            )
            if not far <= FEATURES:
                raise ConfigError(f"{output}: the file does not agree with the backbone: {lines[-1]}")
    return lines


def _write_detector(
    trained: Trained,
    output: Path,
    score_threshold: float | None,
    size: Size | None,
    images: Sequence[str | Path],
) -> list[str]:
    program = Detector(trained, score_threshold).eval()
    pictures = [np.array(read_image(image, "RGB")) for image in images]  # writable
    pictures = pictures or [_noise(shape) for shape in ([size] if size else NOISE)]
    for picture in pictures:
        if size and picture.shape[:2] != size:
            raise ConfigError(f"--size {size[0]}x{size[1]}: the images to compare on are to be of that size")
    told = {**_metadata(trained), "score_threshold": str(program.score_threshold)}
    with atomic_write(output) as partial:
        traced = trace(program, torch.from_numpy(pictures[0]), {} if size else {0: 1, 1: 1})
        save_program(traced, partial, output.suffix, ["image"], program.output_names, told)
        run = open_program(partial, output.suffix)
        return [_hold_against(run, trained, program, picture, output) for picture in pictures]


def _hold_against(run: Runner, trained: Trained, program: Detector, picture: Picture, output: Path) -> str:
    """How far a file is from the detector on an image, in a line.

    Raises:
        ConfigError: too far.
    """
    found = run(torch.from_numpy(picture))
    seen = {name: x.numpy() for name, x in zip(program.output_names, found, strict=True)}
    difference = compare(find_objects(trained, picture, program.score_threshold), seen)
    told = f"{picture.shape[0]}x{picture.shape[1]}: {difference}"
    if not _agrees(difference):
        raise ConfigError(f"{output}: the file does not agree with the detector: {told}")
    return told


def _agrees(difference: Difference) -> bool:
    return (
        not difference.unmatched
        and difference.boxes <= BOXES
        and difference.scores <= SCORES
        and difference.pixels <= MASKS * difference.area
    )


def _noise(size: Size) -> Picture:
    """A picture of blurred noise, the same at every call."""
    import cv2

    cells = np.random.default_rng(0).integers(0, 256, (size[0] // 16 + 2, size[1] // 16 + 2, 3), np.uint8)
    return cv2.resize(cells, (size[1], size[0]), interpolation=cv2.INTER_CUBIC).astype(np.uint8)
