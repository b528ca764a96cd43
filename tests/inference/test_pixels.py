"""Images in every accepted form give the same pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from d2timm import ConfigError
from d2timm.inference.pixels import pixels_of


@pytest.mark.parametrize("image_format", ["RGB", "BGR", "L"])
def test_every_form_of_an_image_gives_the_same_pixels(image_format: str, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    file = tmp_path / "x.png"
    Image.fromarray(pixels).save(file)
    read = pixels_of(file, image_format)
    forms = [str(file), Image.open(file), pixels, torch.from_numpy(pixels).permute(2, 0, 1)]
    forms.append(pixels[:, ::-1][:, ::-1])  # not contiguous
    for form in forms:
        assert np.array_equal(pixels_of(form, image_format), read)
    grey = pixels[..., 0]
    for form in (grey, grey[..., None], torch.from_numpy(grey)[None], Image.fromarray(grey)):
        assert np.array_equal(pixels_of(form, "L")[..., 0], grey)
        assert np.array_equal(pixels_of(form, "RGB"), np.dstack([grey] * 3))


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (np.zeros((4, 4, 3), np.float32), r"array \(4, 4, 3\) of float32.*bytes"),
        (np.zeros((3, 4, 5), np.uint8), r"array \(3, 4, 5\)"),
        (np.zeros(4, np.uint8), r"array \(4,\)"),
        (np.zeros((2, 4, 4, 3), np.uint8), r"array \(2, 4, 4, 3\)"),
        (np.zeros((0, 4, 3), np.uint8), r"array \(0, 4, 3\)"),
        (torch.rand(3, 4, 4), r"tensor \(3, 4, 4\) of torch\.float32.*\.to\(torch\.uint8\)"),
        (torch.zeros(4, 4, 3, dtype=torch.uint8)[:2], r"tensor \(2, 4, 3\)"),
        (None, "NoneType .*a path"),
        (7, "int .*a path"),
    ],
)
def test_other_values_are_rejected(image: Any, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        pixels_of(image, "RGB")


def test_size_limit_applies_to_files(tmp_path: Path) -> None:
    Image.new("RGB", (8, 6)).save(tmp_path / "x.png")
    with pytest.raises(ConfigError, match="max_pixels=47"):
        pixels_of(tmp_path / "x.png", "RGB", max_pixels=47)
