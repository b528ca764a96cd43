"""Images in every accepted form give the same pixels."""

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
ORIENTATION = 274  # EXIF tag


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


def test_grey_images_of_16_bits_are_scaled_not_clipped(tmp_path: Path) -> None:
    values = np.array([[0, 257, 32896], [65535, 128 * 257, 255 * 257]], np.uint16)
    for name in ("x.png", "x.tif"):
        file = save(Image.fromarray(values), tmp_path / name)
        assert read_image(file, "L")[..., 0].tolist() == [[0, 1, 128], [255, 128, 255]]
        assert (np.ptp(read_image(file, "RGB"), axis=2) == 0).all()


@pytest.mark.filterwarnings("error")
def test_transparency_is_dropped(pixels: np.ndarray, tmp_path: Path) -> None:
    opaque = np.dstack([pixels, np.full(SIZE, 255, np.uint8)])
    clear = np.dstack([pixels, np.zeros(SIZE, np.uint8)])
    assert np.array_equal(pixels_of(clear, "RGB"), pixels_of(opaque, "RGB"))
    palette = Image.fromarray(pixels).quantize(16)
    file = save(palette, tmp_path / "x.png", transparency=bytes(range(16)))
    assert np.array_equal(read_image(file, "RGB"), np.asarray(palette.convert("RGB")))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int, pixels: np.ndarray, tmp_path: Path) -> None:
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
def test_every_form_of_an_image_gives_the_same_pixels(
    image_format: str, pixels: np.ndarray, tmp_path: Path
) -> None:
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


@pytest.mark.parametrize(
    ("write", "reason"),
    [
        (lambda file: None, "No such file or directory"),
        (lambda file: file.mkdir(), "Is a directory"),
        (lambda file: file.write_text("text"), "Pillow does not know its format"),
        (lambda file: file.write_bytes(b""), "Pillow does not know its format"),
    ],
)
def test_broken_files_are_rejected(write: Callable[[Path], Any], reason: str, tmp_path: Path) -> None:
    write(tmp_path / "x.jpg")
    with pytest.raises(ConfigError, match=rf"x\.jpg: .*{reason}"):
        read_image(tmp_path / "x.jpg", "RGB")


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "bmp"])
def test_truncated_file_is_rejected(suffix: str, pixels: np.ndarray, tmp_path: Path) -> None:
    file = save(Image.fromarray(np.tile(pixels, (20, 20, 1))), tmp_path / f"x.{suffix}")
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(ConfigError, match=rf"x\.{suffix}: "):
        read_image(file, "RGB")
