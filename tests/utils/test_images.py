"""Images in any form are the same pixels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.data import detection_utils
from PIL import Image

from d2timm import ConfigError
from d2timm.utils.images import pixels_of, read_image

SIZE = (6, 8)  # (H, W)
ORIENTATION = 274  # the tag of EXIF


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)


def save(image: Image.Image, file: Path, **options: Any) -> Path:
    image.save(file, **options)
    return file


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "CMYK"])
@pytest.mark.parametrize("image_format", ["RGB", "BGR", "L"])
def test_files_are_read_as_detectron2_reads_them(
    mode: str, image_format: str, pixels: np.ndarray, tmp_path: Path
) -> None:
    image = Image.fromarray(pixels).convert(mode)
    file = save(image, tmp_path / ("x.tif" if mode == "CMYK" else "x.png"))
    read = read_image(file, image_format)
    assert read.shape == (*SIZE, 1 if image_format == "L" else 3)
    assert read.dtype == np.uint8
    assert np.array_equal(read, detection_utils.read_image(str(file), image_format))


def test_grey_of_16_bits_is_not_cut_off(tmp_path: Path) -> None:
    values = np.array([[0, 257, 32896], [65535, 128 * 257, 255 * 257]], np.uint16)
    for name in ("x.png", "x.tif"):
        file = save(Image.fromarray(values), tmp_path / name)
        assert read_image(file, "L")[..., 0].tolist() == [[0, 1, 128], [255, 128, 255]]
        assert (np.ptp(read_image(file, "RGB"), axis=2) == 0).all()


@pytest.mark.filterwarnings("error")
def test_transparency_is_left_out(pixels: np.ndarray, tmp_path: Path) -> None:
    opaque = np.dstack([pixels, np.full(SIZE, 255, np.uint8)])
    clear = np.dstack([pixels, np.zeros(SIZE, np.uint8)])
    assert np.array_equal(pixels_of(clear, "RGB"), pixels_of(opaque, "RGB"))
    palette = Image.fromarray(pixels).quantize(16)
    file = save(palette, tmp_path / "x.png", transparency=bytes(range(16)))
    assert np.array_equal(read_image(file, "RGB"), np.asarray(palette.convert("RGB")))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photographs_are_turned_upright(orientation: int, pixels: np.ndarray, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    file = save(Image.fromarray(pixels), tmp_path / "x.png", exif=exif)
    upright = {
        1: pixels,
        2: pixels[:, ::-1],
        3: pixels[::-1, ::-1],
        4: pixels[::-1],
        5: pixels.swapaxes(0, 1),
        6: np.rot90(pixels, -1),
        7: np.rot90(pixels, 2).swapaxes(0, 1),
        8: np.rot90(pixels),
    }[orientation]
    assert np.array_equal(read_image(file, "RGB"), upright)
    with Image.open(file) as image:
        assert np.array_equal(pixels_of(image, "RGB"), upright)


@pytest.mark.parametrize("image_format", ["RGB", "BGR", "L"])
def test_every_form_of_an_image_is_the_same(image_format: str, pixels: np.ndarray, tmp_path: Path) -> None:
    file = save(Image.fromarray(pixels), tmp_path / "x.png")
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
        (np.zeros((4, 4, 3), np.float32), r"array \(4, 4, 3\) of float32 is no image: use bytes"),
        (np.zeros((3, 4, 5), np.uint8), r"array \(3, 4, 5\)"),
        (np.zeros(4, np.uint8), r"array \(4,\)"),
        (np.zeros((2, 4, 4, 3), np.uint8), r"array \(2, 4, 4, 3\)"),
        (np.zeros((0, 4, 3), np.uint8), "no pixels"),
        (torch.rand(3, 4, 4), r"tensor \(3, 4, 4\) of torch.float32 is no image: .*\.to\(torch\.uint8\)"),
        (torch.zeros(4, 4, 3, dtype=torch.uint8)[:2], r"tensor \(2, 4, 3\)"),
        (None, "NoneType is no image: use a path"),
        (7, "int is no image"),
    ],
)
def test_what_is_no_image_is_told(image: Any, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        pixels_of(image, "RGB")


@pytest.mark.parametrize(
    ("write", "reason"),
    [
        (lambda file: None, "No such file or directory"),
        (lambda file: file.mkdir(), "Is a directory"),
        (lambda file: file.write_text("text"), "of no format that Pillow knows"),
        (lambda file: file.write_bytes(b""), "of no format"),
    ],
)
def test_broken_files_are_told_in_a_line(write: Callable[[Path], Any], reason: str, tmp_path: Path) -> None:
    write(tmp_path / "x.jpg")
    with pytest.raises(ConfigError, match=rf"x\.jpg: no image that can be read: .*{reason}"):
        read_image(tmp_path / "x.jpg", "RGB")


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "bmp"])
def test_file_that_was_cut_off_is_told(suffix: str, pixels: np.ndarray, tmp_path: Path) -> None:
    file = save(Image.fromarray(np.tile(pixels, (20, 20, 1))), tmp_path / f"x.{suffix}")
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(ConfigError, match="no image that can be read"):
        read_image(file, "RGB")
