"""TIFF files that Pillow cannot read, or reads wrongly."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from d2timm import ConfigError
from d2timm.utils.images import read_image

SIZE = (6, 8)  # (H, W)
LZW = [cv2.IMWRITE_TIFF_COMPRESSION, 5]


@pytest.fixture
def colours() -> Any:
    return np.random.default_rng(0).integers(0, 256, (*SIZE, 3)).astype(np.float64)


def write_planes(file: Path, values: Any, order: str, sample_format: int) -> None:
    """Write an uncompressed TIFF file with one plane per channel, each in two strips."""
    planes = values.transpose(2, 0, 1).astype(values.dtype.newbyteorder(order))
    half = SIZE[0] // 2
    strips = [rows.tobytes() for plane in planes for rows in (plane[:half], plane[half:])]
    count, bits = len(strips), 8 * values.dtype.itemsize
    tags: dict[int, tuple[str, list[int]]] = {
        256: ("H", [SIZE[1]]),
        257: ("H", [SIZE[0]]),
        258: ("H", [bits] * 3),
        259: ("H", [1]),
        262: ("H", [2]),
        273: ("I", [8 + i * len(strips[0]) for i in range(count)]),
        277: ("H", [3]),
        278: ("H", [half]),
        279: ("I", [len(strips[0])] * count),
        284: ("H", [2]),
        339: ("H", [sample_format] * 3),
    }
    directory = 8 + sum(map(len, strips))
    extra, entries = b"", b""
    for tag, (code, numbers) in tags.items():
        data = struct.pack(f"{order}{len(numbers)}{code}", *numbers)
        if len(data) > 4:
            offset = directory + 2 + 12 * len(tags) + 4 + len(extra)
            extra, data = extra + data, struct.pack(f"{order}I", offset)
        kind = {"H": 3, "I": 4}[code]
        entries += struct.pack(f"{order}HHI", tag, kind, len(numbers)) + data.ljust(4, b"\0")
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, directory)
    parts = [head, *strips, struct.pack(f"{order}H", len(tags)), entries, bytes(4), extra]
    file.write_bytes(b"".join(parts))


@pytest.mark.parametrize("options", [[], LZW])
@pytest.mark.parametrize("dtype", ["f4", "f8", "u4", "i4"])
def test_deep_colours_are_scaled(dtype: str, options: list[int], colours: Any, tmp_path: Path) -> None:
    values = (colours / 255 if dtype[0] == "f" else colours).astype(dtype)
    cv2.imwrite(str(tmp_path / "x.tif"), values[..., ::-1], options)
    with Image.open(tmp_path / "x.tif") as image:
        assert (image.size, image.mode, image.format) == (SIZE[::-1], "RGB", "TIFF")
    assert np.array_equal(read_image(tmp_path / "x.tif", "RGB"), colours)


@pytest.mark.parametrize("dtype", ["f8", "u8"])
def test_grey_of_64_bits(dtype: str, colours: Any, tmp_path: Path) -> None:
    values = colours[..., 0]
    cv2.imwrite(str(tmp_path / "x.tif"), (values / 255 if dtype == "f8" else values).astype(dtype))
    assert np.array_equal(read_image(tmp_path / "x.tif", "L")[..., 0], values)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("dtype", "sample_format", "white"), [("u2", 1, 65535), ("f4", 3, 1)])
def test_planes_are_not_mixed(
    dtype: str, sample_format: int, white: float, order: str, colours: Any, tmp_path: Path
) -> None:
    write_planes(tmp_path / "x.tif", (colours / 255 * white).astype(dtype), order, sample_format)
    assert np.array_equal(read_image(tmp_path / "x.tif", "RGB"), colours)


def test_truncated_and_rare_files_are_rejected(colours: Any, tmp_path: Path) -> None:
    file = tmp_path / "x.tif"
    write_planes(file, colours.astype(np.float16), "<", 3)
    with pytest.raises(ConfigError, match=r"x\.tif: .*8 or 16 bits"):
        read_image(file, "RGB")
    cv2.imwrite(str(file), np.random.default_rng(0).random((100, 100, 3)))
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(ConfigError, match=r"x\.tif: "):
        read_image(file, "RGB")
