"""Images by the names that annotations give them."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pytest

from d2timm.data.checks.finder import Finder, visible_files

NFC, NFD = (unicodedata.normalize(form, "é.png") for form in ("NFC", "NFD"))


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


@pytest.mark.parametrize("name", ["a.png", "b/c.png", "./a.png", "b/../a.png", ".hidden.png", "{}/a.png"])
def test_exact_path(tmp_path: Path, name: str) -> None:
    touch(tmp_path, "a.png", "b/c.png", ".hidden.png")
    name = name.format(tmp_path)
    assert Finder(tmp_path).find(name) == (tmp_path / name, False)


@pytest.mark.parametrize(
    ("name", "on_disk"),
    [
        *(("b\\a.png", "b/a.png"), ("C:\\set\\b\\a.png", "b/a.png"), ("/other/set/b/a.png", "b/a.png")),
        *(("x/a.png", "a.png"), ("a.png", "deep/below/a.png"), ("https://host/x/a.png", "a.png")),
        *(("A.PNG", "a.png"), ("B/a.png", "b/A.png"), (NFC, NFD), (NFD, NFC), (" a.png ", "a.png")),
    ],
)
def test_other_path(tmp_path: Path, name: str, on_disk: str) -> None:
    touch(tmp_path, on_disk, "other.png")
    assert Finder(tmp_path).find(name) == (tmp_path / on_disk, True)


@pytest.mark.parametrize(
    "name", ["b.png", "a", "", ".", "a\0.png", "a" * 300, "a/" * 3000, "\ud800", "x/.hidden.png"]
)
def test_missing_image_has_the_path_of_the_annotations(tmp_path: Path, name: str) -> None:
    touch(tmp_path, "a.png", "c/.hidden.png")
    assert Finder(tmp_path).find(name) == (tmp_path / name, False)


def test_longest_ending_decides(tmp_path: Path) -> None:
    touch(tmp_path, "one/a.png", "two/a.png")
    finder = Finder(tmp_path)
    assert finder.find("C:\\set\\two\\a.png") == (tmp_path / "two" / "a.png", True)
    assert finder.find("C:\\set\\a.png") == (tmp_path / "C:\\set\\a.png", False), "two files have this name"


def test_image_of_an_existing_folder_is_not_looked_for_elsewhere(tmp_path: Path) -> None:
    touch(tmp_path, "one/a.png", "two/b.png", "three/below/c.png", "c.png")
    finder = Finder(tmp_path)
    assert finder.find("two/a.png") == (tmp_path / "two" / "a.png", False)
    assert finder.find("two\\a.png") == (tmp_path / "two\\a.png", False)
    assert finder.find("three/a.png")[1] is False


def test_file_that_several_names_may_mean(tmp_path: Path) -> None:
    touch(tmp_path, "x.png", "y.png")
    found = Finder(tmp_path).find_all(["a/x.png", "b/x.png", "b/y.png", "b\\y.png", "x.png"])
    assert [(file.relative_to(tmp_path).as_posix(), moved) for file, moved in found] == [
        *(("a/x.png", False), ("b/x.png", False), ("y.png", True), ("y.png", True), ("x.png", False)),
    ]


def test_whole_disk_is_not_searched() -> None:
    name = "/nothing/missing.png"
    assert Finder(Path("/")).find(name) == (Path(name), False)


def test_visible_files(tmp_path: Path) -> None:
    touch(tmp_path, "b/c.png", "a.png", ".hidden/d.png", "b/.e.png")
    (tmp_path / "b" / "up").symlink_to(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path / "b")
    found = [os.path.relpath(file, tmp_path) for file in visible_files(tmp_path)]
    assert found == ["a.png", "b/c.png"]
