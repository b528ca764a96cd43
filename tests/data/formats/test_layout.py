"""Files of a dataset: paths of other machines, folders of splits, text of any encoding."""

from __future__ import annotations

from pathlib import Path, PurePath

import pytest
from helpers.reading import write_text

from d2timm.data.formats.layout import divide, first_files, locate, name_key, path_parts, text_lines


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a.jpg", ("a.jpg",)),
        ("./images//a b.jpg", ("images", "a b.jpg")),
        ("../train/images", ("train", "images")),
        ("/home/me/a.jpg", ("home", "me", "a.jpg")),
        (r"C:\set\images\a.jpg", ("set", "images", "a.jpg")),
        (r"\\server\share\a.jpg", ("a.jpg",)),
        ("", ()),
        (".", ()),
    ],
)
def test_parts_of_paths_of_any_system(text: str, parts: tuple[str, ...]) -> None:
    assert path_parts(text) == parts


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("train/images", "train/images"),
        (r"train\images", "train/images"),
        ("../train/images", "train/images"),
        (r"D:\old\set\train\images", "train/images"),
        ("/old/images", "images"),
        ("/old/train/images/x", None),
        ("/old/val/images", None),  # not the folder of all images
        ("/old/val2017/images", None),
        ("nothing", None),
        ("a\0b", None),
        ("x" * 5000, None),
    ],
)
def test_paths_are_found(tmp_path: Path, text: str, found: str | None) -> None:
    for name in ("train/images", "images"):
        (tmp_path / name).mkdir(parents=True)
    place = locate(text, (tmp_path / "missing", tmp_path))
    assert (place and place.relative_to(tmp_path).as_posix()) == found


def test_name_with_a_backslash_is_found(tmp_path: Path) -> None:
    file = write_text(tmp_path / r"a\b.txt", "")
    assert locate(r"a\b.txt", (tmp_path,)) == file


@pytest.mark.parametrize(
    ("files", "train", "val"),
    [
        (["train/a", "valid/b", "test/c", "x/d"], ["train/a"], ["valid/b"]),
        (["set/Train/a", "set/Test/b"], ["set/Train/a"], ["set/Test/b"]),
        (["images/train2017/a", "images/val2017/b"], ["images/train2017/a"], ["images/val2017/b"]),
        (["train/a", "x/b"], ["train/a", "x/b"], []),
        (["val/a", "b"], ["val/a", "b"], []),
        (["trainers/a", "value/b", "train.jpg"], ["trainers/a", "value/b", "train.jpg"], []),
    ],
)
def test_folders_of_splits(files: list[str], train: list[str], val: list[str]) -> None:
    paths = [PurePath(file) for file in files]
    for split, expected in (("train", train), ("val", val)):
        chosen, note = divide(paths, split)
        assert [file.as_posix() for file in chosen] == expected
        assert note


def test_note_counts_files_outside_the_splits() -> None:
    assert "2 other" in divide([PurePath(file) for file in ("train/a", "val/b", "test/c", "d")], "train")[1]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_lines_of_any_encoding(tmp_path: Path, encoding: str) -> None:
    file = write_text(tmp_path / "a.txt", "häuser \r\n\r\n \t\n 0 1", encoding)
    assert text_lines(file) == [(1, "häuser"), (4, "0 1")]


def test_bytes_of_another_encoding_spoil_their_line_only(tmp_path: Path) -> None:
    assert text_lines(write_text(tmp_path / "a.txt", "a\nhäuser\nb", "latin-1"))[::2] == [(1, "a"), (3, "b")]


def test_first_files_are_limited_and_not_hidden(tmp_path: Path) -> None:
    for name in ("b.XML", "a.txt", ".c.xml", "deep/d.xml", ".hidden/e.xml"):
        write_text(tmp_path / name, "")
    assert [file.name for file in first_files(tmp_path, ".xml")] == ["b.XML", "d.xml"]
    assert [file.name for file in first_files(tmp_path, ".xml", limit=1)] == ["b.XML"]
    assert not list(first_files(tmp_path / "missing", ".xml"))


def test_names_are_equal_in_any_case_and_unicode_form() -> None:
    assert name_key("Ümlaut") == name_key("u\u0308mlaut")
