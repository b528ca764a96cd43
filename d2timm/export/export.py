"""Write a trained detector to a file that does not need this package."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from ..config import lazy as config
from ..errors import ConfigError
from ..inference.trained import Trained, open_run
from ..utils.files import atomic_write
from ..utils.images import Picture, read_image
from ..utils.safetensors_file import read_safetensors, write_safetensors
from ..utils.sizes import Size
from ..utils.text import one_line
from .formats import Runner, check_packages, open_program, save_program, trace
from .program import Detector, NormalizedBackbone
from .verify import Difference, compare, reference_result

__all__ = ["FORMATS", "PARTS", "export_run"]

FORMATS = (".pt2", ".onnx", ".safetensors")
PARTS = ("detector", "backbone")

NOISE = ((240, 320), (301, 200))  # (height, width) of the noise pictures that a file is verified on
# Largest accepted differences between a file and the detector. They are far above the effect of summing in
# another order, which is the only difference that should remain.
MAX_BOXES = 0.1  # pixels
MAX_SCORES = 1e-3
MAX_MASKS = 1e-2  # fraction of the mask pixels
MAX_FEATURES = 1e-3  # fraction of the largest value of a level


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
    """Write a run's detector, or its backbone, to a file and verify the file against the detector.

    Args:
        run: a run folder, or an exported ``.safetensors``.
        output: the file to write; its suffix is the format, one of ``FORMATS``.
        weights: as in ``open_run``.
        part: ``detector``, or ``backbone``: the timm backbone alone, to ONNX.
        score_threshold: 0 to 1; detections that do not exceed it are dropped. None: the config's threshold.
        size: (height, width) in pixels, if the file is to take images of this size only; None: of any size.
        images: image files to verify the detector on; if empty, noise is used.

    Returns:
        The differences, one line per image.

    Raises:
        ConfigError: an argument is invalid, the detector cannot be exported, the disk is full, or the file
            does not agree with the detector; no file is left behind.
    """
    output = Path(output)
    _check_arguments(output, part, score_threshold, size, images)
    trained = open_run(run, weights, "cpu")
    try:
        if output.suffix == ".safetensors":
            return _write_weights(trained, output)
        if part == "backbone":
            return _write_backbone(trained, output, size)
        return _write_detector(trained, output, score_threshold, size, images)
    except OSError as error:
        raise ConfigError(one_line(error)) from error


def _check_arguments(
    output: Path,
    part: str,
    score_threshold: float | None,
    size: Size | None,
    images: Sequence[str | Path],
) -> None:
    """Raise ConfigError for mistakes that can be recognised before the run is opened."""
    if output.suffix not in FORMATS:
        raise ConfigError(f"--output {output}: the suffix must be a format, one of {', '.join(FORMATS)}")
    if output.is_dir() or not output.parent.is_dir():
        raise ConfigError(f"--output {output}: must be a file in an existing folder")
    if not os.access(output.parent, os.W_OK | os.X_OK):
        raise ConfigError(f"--output {output}: the folder is not writable")
    if part not in PARTS:
        raise ConfigError(f"--part {part}: must be one of {', '.join(PARTS)}")
    if part == "backbone" and output.suffix != ".onnx":
        raise ConfigError(f"--part backbone: can only be exported to .onnx, not to {output.suffix}")
    if score_threshold is not None and not 0 <= score_threshold < 1:
        raise ConfigError(f"--score-threshold {score_threshold}: must be at least 0 and less than 1")
    if output.suffix == ".safetensors" and (size or score_threshold is not None or images):
        raise ConfigError(
            f"--output {output}: --size, --score-threshold and --image do not apply to .safetensors"
        )
    if size and min(size) < 2:
        raise ConfigError(f"--size {size[0]}x{size[1]}: sides must have at least 2 pixels")
    for image in images:
        if not Path(image).is_file():
            raise ConfigError(f"--image {image}: no such file")
    check_packages(output.suffix)


def _metadata(trained: Trained) -> dict[str, str]:
    """The metadata of files in every format."""
    return {
        "config": config.to_yaml(trained.cfg),
        "labels": json.dumps(trained.labels),
        "classes": json.dumps(trained.labels["classes"]),
    }


def _write_weights(trained: Trained, output: Path) -> list[str]:
    state = trained.model.state_dict()
    with atomic_write(output) as partial:
        write_safetensors(state, partial, _metadata(trained))
        saved, _ = read_safetensors(partial)
        if saved.keys() != state.keys() or not all(torch.equal(saved[name], state[name]) for name in state):
            raise ConfigError(f"{output}: the file does not agree with the detector")
    numbers = sum(x.numel() for x in state.values())
    return [f"{len(state)} tensors, {numbers / 1e6:.1f} M numbers, identical to {trained.weights}"]


def _write_backbone(trained: Trained, output: Path, size: Size | None) -> list[str]:
    model: Any = trained.model
    backbone = model.backbone.bottom_up
    program = NormalizedBackbone(backbone).eval()
    strides = (shape.stride for shape in backbone.output_shape().values())
    multiple = math.lcm(*strides, backbone.spec.input_spec.multiple)
    sizes = [size] if size else [(9 * multiple, 11 * multiple), (4 * multiple, 3 * multiple)]
    trials = [torch.randn(2, backbone.spec.channels, *shape) for shape in sizes]
    metadata = {**_metadata(trained), "model_name": backbone.spec.model_name, "multiple": str(multiple)}
    with atomic_write(output) as partial:
        traced = trace(program, trials[0], {} if size else {0: 1, 2: multiple, 3: multiple})
        save_program(traced, partial, output.suffix, ["images"], program.output_names, metadata)
        run = open_program(partial, output.suffix)
        return [_verify_backbone(run, program, images, output) for images in trials]


def _verify_backbone(run: Runner, program: NormalizedBackbone, images: Tensor, output: Path) -> str:
    """Compare a file with the backbone on a batch of images; returns the differences as a line.

    Raises:
        ConfigError: the differences are too large.
    """
    with torch.no_grad():
        expected = program(images)
    pairs = zip(expected, run(images), strict=True)
    largest = max(float((a - b).abs().max() / a.abs().max()) for a, b in pairs)
    line = (
        f"{images.shape[2]}x{images.shape[3]}: {len(expected)} levels, "
        f"differences up to {largest:.2g} of the largest value"
    )
    if not largest <= MAX_FEATURES:  # NaN does not pass
        raise ConfigError(f"{output}: the file does not agree with the backbone: {line}")
    return line


def _write_detector(
    trained: Trained,
    output: Path,
    score_threshold: float | None,
    size: Size | None,
    images: Sequence[str | Path],
) -> list[str]:
    program = Detector(trained, score_threshold).eval()
    pictures = [np.array(read_image(image, "RGB")) for image in images]  # copies, which torch may write to
    pictures = pictures or [_noise(shape) for shape in ([size] if size else NOISE)]
    for picture in pictures:
        if size and picture.shape[:2] != size:
            raise ConfigError(f"--size {size[0]}x{size[1]}: every --image must have this size")
    metadata = {**_metadata(trained), "score_threshold": str(program.score_threshold)}
    with atomic_write(output) as partial:
        traced = trace(program, torch.from_numpy(pictures[0]), {} if size else {0: 1, 1: 1})
        save_program(traced, partial, output.suffix, ["image"], program.output_names, metadata)
        run = open_program(partial, output.suffix)
        return [_verify_detector(run, trained, program, picture, output) for picture in pictures]


def _verify_detector(run: Runner, trained: Trained, program: Detector, picture: Picture, output: Path) -> str:
    """Compare a file with the detector on a picture; returns the differences as a line.

    Raises:
        ConfigError: the differences are too large.
    """
    outputs = run(torch.from_numpy(picture))
    result = {name: x.numpy() for name, x in zip(program.output_names, outputs, strict=True)}
    difference = compare(reference_result(trained, picture, program.score_threshold), result)
    line = f"{picture.shape[0]}x{picture.shape[1]}: {difference}"
    if not _is_acceptable(difference):
        raise ConfigError(f"{output}: the file does not agree with the detector: {line}")
    return line


def _is_acceptable(difference: Difference) -> bool:
    return (
        not difference.unmatched
        and difference.boxes <= MAX_BOXES
        and difference.scores <= MAX_SCORES
        and difference.pixels <= MAX_MASKS * difference.area
    )


def _noise(size: Size) -> Picture:
    """A picture of blurred noise, the same for every call."""
    cells = np.random.default_rng(0).integers(0, 256, (size[0] // 16 + 2, size[1] // 16 + 2, 3), np.uint8)
    return cv2.resize(cells, (size[1], size[0]), interpolation=cv2.INTER_CUBIC).astype(np.uint8)
