"""Headers of image files, and their cache."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from d2timm.data.checks import headers
from d2timm.data.checks.headers import Header, file_state, read_header, read_headers
from d2timm.utils.files import cache_root


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache."""
    monkeypatch.setenv("D2TIMM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def save(
    file: Path, size: tuple[int, int] = (30, 20), mode: str = "RGB", orientation: int = 1, **options: Any
) -> Path:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new(mode, size).save(file, exif=exif, **options)
    return file


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_size_as_stored_and_as_shown(tmp_path: Path, suffix: str, orientation: int) -> None:
    header = read_header(save(tmp_path / f"a{suffix}", orientation=orientation))
    assert (header.stored, header.orientation, header.problem) == ((30, 20), orientation, "")
    assert header.shown == ((30, 20) if orientation < 5 else (20, 30))


def test_mode_and_animation(tmp_path: Path) -> None:
    assert read_header(save(tmp_path / "a.png", mode="L")) == Header((30, 20), mode="L")
    Image.fromarray(np.zeros((20, 30), np.uint16)).save(tmp_path / "b.png")
    assert read_header(tmp_path / "b.png").mode.startswith("I")
    frames = [Image.new("L", (30, 20), value) for value in (0, 255)]
    frames[0].save(tmp_path / "c.gif", save_all=True, append_images=frames[1:])
    assert read_header(tmp_path / "c.gif").animated


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".bmp", ".gif"])
def test_truncated_file(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"a{suffix}"
    noise = np.random.default_rng(0).integers(0, 255, (90, 120, 3), dtype=np.uint8)
    Image.fromarray(noise).save(file)
    complete = file.read_bytes()
    file.write_bytes(complete[: len(complete) * 2 // 3])
    header = read_header(file)
    assert (header.problem, header.stored) == ("truncated_image", (120, 90))
    assert header.reason
    assert "\n" not in header.reason


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_file_with_another_end_can_be_read(tmp_path: Path, suffix: str) -> None:
    file = save(tmp_path / f"a{suffix}")
    file.write_bytes(file.read_bytes() + bytes(50))
    assert read_header(file) == read_header(save(tmp_path / f"b{suffix}"))


@pytest.mark.parametrize("content", [b"", b"\x89PNG", b"text", b"<html>404</html>", bytes(1000)])
def test_file_that_is_no_image(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "a.jpg"
    file.write_bytes(content)
    header = read_header(file)
    assert header.problem == "unreadable_image"
    assert str(file) not in header.reason


def test_missing_files_and_folders(tmp_path: Path) -> None:
    names = ["missing.png", "a\0.png", "a" * 300, "\ud800.png", "missing/a.png"]
    read = read_headers(tmp_path / name for name in names)
    assert {header.problem for header in read.values()} == {"missing_image"}
    assert len(read) == len(names)
    assert read_headers([tmp_path])[tmp_path].problem == "unreadable_image"
    assert read_headers([]) == {}


def test_large_image_needs_no_limit_of_pillow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    assert read_header(save(tmp_path / "a.png")).stored == (30, 20)
    assert Image.MAX_IMAGE_PIXELS == 10


def test_unchanged_files_come_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "deep").mkdir()
    files = [save(tmp_path / "a.png"), save(tmp_path / "b.jpg", orientation=6), tmp_path / "c.png"]
    files += [save(tmp_path / "deep" / "a.png", (5, 5))]
    files[2].write_bytes(b"text")
    first = read_headers(files)
    opened: list[Path] = []
    monkeypatch.setattr(headers, "read_header", lambda file: opened.append(file) or read_header(file))
    assert read_headers(files) == first
    assert opened == []

    save(files[0], (7, 9))
    changed = read_headers(files)
    assert (opened, changed[files[0]].stored) == ([files[0]], (7, 9))
    assert {file: changed[file] for file in files[1:]} == {file: first[file] for file in files[1:]}


def test_time_of_a_file_matters(tmp_path: Path) -> None:
    file = save(tmp_path / "a.png")
    time, size = file_state(file)
    os.utime(file, ns=(time, time + 1))
    assert file_state(file) == (time + 1, size)
    assert file_state(tmp_path / "missing") == (0, -1)


def test_folders_have_caches_of_their_own(tmp_path: Path, cache: Path) -> None:
    for number in range(3):
        (tmp_path / str(number)).mkdir()
        read_headers([save(tmp_path / str(number) / "a.png")])
    assert len(list(cache.iterdir())) == 3


@pytest.mark.parametrize("content", ["", "[]", "{", '{"a.png": [1]}'])
def test_damaged_cache_is_replaced(tmp_path: Path, cache: Path, content: str) -> None:
    file = save(tmp_path / "a.png")
    read_headers([file])
    (cached,) = cache.iterdir()
    cached.write_text(content)
    assert read_headers([file])[file].stored == (30, 20)
    assert list(json.loads(cached.read_text())) == ["a.png"]


def test_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("D2TIMM_CACHE", str(tmp_path / "file" / "cache"))
    file = save(tmp_path / "a.png")
    assert read_headers([file])[file].stored == (30, 20)
    assert not cache_root().exists()


def test_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jpg")
    (header,) = read_headers([tmp_path / "a.jpg"]).values()
    assert (header.problem, header.reason) == ("unreadable_image", "not a file")
