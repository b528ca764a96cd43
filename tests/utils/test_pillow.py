"""Formats, orientations and limits of Pillow."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image, UnidentifiedImageError

from d2timm.utils import pillow
from d2timm.utils.pillow import (
    HEIC,
    has_heic,
    has_several_images,
    image_suffixes,
    open_image,
    orientation_of,
    reason_of,
    stored_size,
    without_pixel_limit,
)

ORIENTATION = 274  # EXIF tag


def test_suffixes_are_those_of_images() -> None:
    assert image_suffixes() >= {".jpg", ".jfif", ".jp2", ".png", ".tif", ".webp", ".gif", ".bmp", ".ppm"}
    assert not image_suffixes() & {".pdf", ".eps", ".mpg", ".txt", ".h5", ".json", ".mp4"}
    assert has_heic() == (".heic" in image_suffixes())


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
def test_size_as_stored_and_orientation(suffix: str, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    Image.new("RGB", (8, 6)).save(tmp_path / f"x.{suffix}", exif=exif)
    with Image.open(tmp_path / f"x.{suffix}") as image:
        assert (stored_size(image), orientation_of(image)) == ((8, 6), 6)


def test_layers_are_no_further_images() -> None:
    image = Image.new("RGB", (8, 6))
    assert not has_several_images(image)
    image.is_animated = True  # type: ignore[attr-defined]
    assert has_several_images(image)
    image.format = "PSD"
    assert not has_several_images(image)


@pytest.mark.skipif(has_heic(), reason="the plug-in is installed")
def test_missing_plug_in_is_named(tmp_path: Path) -> None:
    for name in ("x.heic", "x.jpg"):  # phones rename files
        (tmp_path / name).write_bytes(b"\0\0\0\x18ftypheic" + bytes(100))
        assert r"pip install 'd2timm[heic]'" in reason_of(UnidentifiedImageError(), tmp_path / name)
    assert not image_suffixes() & HEIC


def test_reason_is_one_line_without_the_name(tmp_path: Path) -> None:
    file = tmp_path / "x.jpg"
    assert reason_of(OSError(f"cannot identify {str(file)!r}\nreally"), file) == "cannot identify really"
    assert reason_of(FileNotFoundError(2, "No such file or directory", str(file)), file).startswith("No such")
    assert reason_of(EOFError(), file) == "EOFError"


def test_limit_returns_after_the_last_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 7)

    def use(number: int) -> int | None:
        with without_pixel_limit():
            return Image.MAX_IMAGE_PIXELS

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(use, range(200))) == {None}
    assert Image.MAX_IMAGE_PIXELS == 7
    assert pillow._users == 0


def test_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jpg")
    with pytest.raises(OSError, match="not a file"), open_image(tmp_path / "a.jpg"):
        pass
