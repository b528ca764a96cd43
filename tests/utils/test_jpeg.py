"""JPEG files are decoded to the pixels of Pillow, or left to Pillow."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from d2timm import ConfigError
from d2timm.utils import jpeg
from d2timm.utils.images import read_image

ORIENTATION = 274  # EXIF tag
OPTIONS: dict[str, dict[str, Any]] = {
    "baseline": {},
    "progressive": {"progressive": True},
    "4:4:4": {"subsampling": 0},
    "4:2:2": {"subsampling": 1},
    "RGB": {"keep_rgb": True},
    "restarts": {"restart_marker_blocks": 3},
    "poor": {"quality": 10, "optimize": True},
}


def picture(mode: str = "RGB") -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 256, (7, 9, 3), np.uint8)
    return Image.fromarray(noise).resize((67, 45), Image.Resampling.BICUBIC).convert(mode)


def encoded(mode: str = "RGB", **options: Any) -> bytes:
    file = io.BytesIO()
    picture(mode).save(file, "JPEG", **options)
    return file.getvalue()


def decoded(file: Path) -> np.ndarray | None:
    with Image.open(file) as image:
        return jpeg.decode(file, image)


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_pixels_are_those_of_pillow(mode: str, name: str, tmp_path: Path) -> None:
    file = tmp_path / "x.jpg"
    options = {
        k: v for k, v in OPTIONS[name].items() if mode == "RGB" or k not in ("subsampling", "keep_rgb")
    }
    file.write_bytes(encoded(mode, **options))
    expected = np.asarray(Image.open(file).convert("RGB"))
    assert np.array_equal(decoded(file), expected)
    assert np.array_equal(read_image(file, "RGB"), expected)
    assert np.array_equal(read_image(file, "BGR"), expected[..., ::-1])
    assert np.array_equal(read_image(file, "L")[..., 0], np.asarray(Image.open(file).convert("L")))


@pytest.mark.parametrize("kind", ["CMYK", "PNG", "more behind it"])
def test_other_files_are_left_to_pillow(kind: str, tmp_path: Path) -> None:
    png = io.BytesIO()
    picture().save(png, "PNG")
    content = {"CMYK": encoded("CMYK"), "PNG": png.getvalue(), "more behind it": encoded() + b"more"}
    file = tmp_path / "x.jpg"
    file.write_bytes(content[kind])
    assert decoded(file) is None
    assert np.array_equal(read_image(file, "RGB"), np.asarray(Image.open(file).convert("RGB")))


def test_truncated_file_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "x.jpg"
    file.write_bytes(encoded()[:-500])
    with pytest.raises(ConfigError, match="truncated"):
        read_image(file, "RGB")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turned_files_are_turned_upright(orientation: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    file = tmp_path / "x.jpg"
    file.write_bytes(encoded(exif=exif))
    with Image.open(file) as image:
        assert np.array_equal(read_image(file, "RGB"), np.asarray(ImageOps.exif_transpose(image)))


CONTENT = [encoded(**options) for options in OPTIONS.values()] + [encoded("L"), encoded("CMYK")]


@given(
    content=st.sampled_from(CONTENT),
    edits=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=4),
    kept=st.floats(0, 1),
    ends=st.booleans(),
)
def test_damaged_files_give_what_pillow_gives(
    content: bytes,
    edits: list[tuple[float, int]],
    kept: float,
    ends: bool,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    damaged = bytearray(content[: round(kept * len(content))] if kept < 0.3 else content)
    for place, value in edits:
        if damaged:
            damaged[int(place * (len(damaged) - 1))] = value
    file = tmp_path_factory.getbasetemp() / "damaged.jpg"
    file.write_bytes(damaged + (jpeg.END if ends else b""))

    def read() -> Any:
        try:
            return read_image(file, "RGB", 10**6).tolist()
        except ConfigError as error:
            return str(error)

    with pytest.MonkeyPatch.context() as patch:
        first = read()
        patch.setattr(jpeg, "decode", lambda *_: None)
        assert first == read()
