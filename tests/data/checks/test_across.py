"""Images that no split lists, and images that both splits have."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from helpers.reading import write_image
from PIL import Image, ImageEnhance

from d2timm.data.checks.across import near_duplicates, unlabelled_files


def picture(seed: int, size: tuple[int, int] = (320, 240)) -> Image.Image:
    """A picture with large coloured patches."""
    patches = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(patches).resize(size, Image.Resampling.BICUBIC)


def test_unlabelled_images(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.PNG", "deep/c.webp.jpg", ".hidden.jpg", ".cache/d.jpg"):
        write_image(tmp_path / name)
    (tmp_path / "notes.txt").touch()
    used = [str(tmp_path / "a.jpg")]
    expected = [str(tmp_path / name) for name in ("b.PNG", "deep/c.webp.jpg")]
    assert unlabelled_files([str(tmp_path)], used) == expected
    assert unlabelled_files([str(tmp_path), f"{tmp_path}/deep/.."], used) == expected


def test_folders_of_absolute_names(tmp_path: Path) -> None:
    for name in ("one/a.jpg", "one/b.jpg", "two/c.jpg"):
        write_image(tmp_path / name)
    assert unlabelled_files(["/"], [str(tmp_path / "one" / "a.jpg")]) == [str(tmp_path / "one" / "b.jpg")]
    assert unlabelled_files(["/"], []) == []


def test_image_under_another_path_is_not_unlabelled(tmp_path: Path) -> None:
    file = write_image(tmp_path / "images" / "a.jpg")
    (tmp_path / "link").symlink_to(tmp_path / "images")
    for used in (
        f"{tmp_path}/images/../images/a.jpg",
        str(tmp_path / "link" / "a.jpg"),
        os.path.relpath(file),
    ):
        assert unlabelled_files([str(tmp_path / "images")], [used]) == []


def test_near_duplicates(tmp_path: Path) -> None:
    files = {}
    changed = {
        "same": picture(1),
        "small": picture(1, (160, 120)),
        "bright": ImageEnhance.Brightness(picture(1)).enhance(1.1),
        "other": picture(2),
        "mirrored": picture(1).transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    }
    for name, image in {"train": picture(1), "train2": picture(3), **changed}.items():
        files[name] = str(tmp_path / f"{name}.jpg")
        image.save(files[name], quality=70)
    train = [files.pop("train"), files.pop("train2")]
    pairs = near_duplicates(train, [*files.values()])
    assert pairs == [(files[name], train[0]) for name in ("same", "small", "bright")]
    assert near_duplicates(train, []) == near_duplicates([], train) == []


def test_same_file_in_both_splits(tmp_path: Path) -> None:
    picture(1).save(tmp_path / "a.png")
    file = str(tmp_path / "a.png")
    assert near_duplicates([file], [file]) == [(file, file)]


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK"])
def test_modes_of_images(tmp_path: Path, mode: str) -> None:
    suffix = ".tif" if mode == "CMYK" else ".png"
    files = []
    for name in "ab":
        files.append(str(tmp_path / f"{name}{suffix}"))
        picture(1).convert(mode).save(files[-1])
    assert near_duplicates(files[:1], files[1:]) == [(files[1], files[0])]


def test_plain_and_unreadable_images_are_not_compared(tmp_path: Path) -> None:
    files = [str(write_image(tmp_path / f"{name}.png")) for name in "ab"]
    (tmp_path / "c.png").write_text("text")
    assert near_duplicates([*files, str(tmp_path / "c.png")], [*files, str(tmp_path / "missing.png")]) == []
