"""Inputs that a command line names, and the names of their results."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from d2timm import ConfigError
from d2timm.inference.inputs import find_inputs
from d2timm.utils.pillow import has_heic, image_suffixes

FILES = ["a/1.jpg", "a/1.png", "a/deep/2.JPG", "b/1.jpg", "clip.mp4", "notes.txt", ".hidden.jpg", ".x/3.jpg"]


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "photos"
    for name in FILES:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    monkeypatch.chdir(root)
    return root


def names(*arguments: str, output: str = "../out") -> list[str]:
    return [item.name for item in find_inputs(arguments, Path(output))[1]]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["a/1.jpg"], ["1.jpg"]),
        (["a"], ["1.jpg", "1.png", "deep/2.JPG"]),
        (["."], ["a/1.jpg", "a/1.png", "a/deep/2.JPG", "b/1.jpg", "clip.mp4"]),
        (["*/*.jpg"], ["a/1.jpg", "b/1.jpg"]),
        (["**/*.[jJ][pP]*"], ["a/1.jpg", "a/deep/2.JPG", "b/1.jpg"]),
        (["*"], ["clip.mp4"]),
        (["b/1.jpg", "a/1.png", "b", "./b/../b/1.jpg"], ["b/1.jpg", "a/1.png"]),
        (["notes.txt", "a/1.jpg"], ["notes.txt", "a/1.jpg"]),  # a named file is taken, whatever its suffix
    ],
)
def test_files_folders_and_patterns(photos: Path, arguments: list[str], expected: list[str]) -> None:
    assert names(*arguments) == expected


@pytest.mark.parametrize("suffix", sorted({".jfif", ".jp2", ".avif", ".JPE", ".Tiff"}))
def test_every_format_of_pillow_is_taken(photos: Path, suffix: str) -> None:
    if suffix.lower() not in image_suffixes():
        pytest.skip(f"this Pillow does not read {suffix}")
    (photos / "b" / f"2{suffix}").touch()
    assert names("b") == ["1.jpg", f"2{suffix}"]


def test_files_of_other_kinds_are_counted(photos: Path) -> None:
    assert find_inputs(["a"], Path("../out")).left_out == []
    assert find_inputs(["."], Path("../out")).left_out == [
        ".: 1 file that is neither an image nor a video was left out: notes.txt"
    ]
    for name in ("a/notes.json", "a/Thumbs.db", "a/README"):
        (photos / name).touch()
    assert find_inputs([".", "*/*"], Path("../out")).left_out == [
        ".: 4 files that are neither images nor videos were left out, such as README",
        "*/*: 3 files that are neither images nor videos were left out, such as README",
    ]
    assert find_inputs(["notes.txt", "a/1.jpg"], Path("../out")).left_out == []


@pytest.mark.skipif(has_heic(), reason="the plug-in is installed")
def test_missing_plug_in_is_named(photos: Path) -> None:
    (photos / "b" / "2.HEIC").touch()
    (line,) = find_inputs(["b"], Path("../out")).left_out
    assert "2.HEIC" in line
    assert "pip install 'd2timm[heic]'" in line
    (photos / "c").mkdir()
    (photos / "b" / "2.HEIC").rename(photos / "c" / "2.HEIC")
    with pytest.raises(ConfigError, match=r"c: no images or videos found; .*d2timm\[heic\]"):
        find_inputs(["c"], Path("../out"))


def test_root_contains_all_inputs(photos: Path) -> None:
    assert find_inputs(["a/deep"], Path("../out"))[0] == photos / "a" / "deep"
    assert find_inputs(["a/deep", "b"], Path("../out"))[0] == photos


def test_results_have_different_names(photos: Path) -> None:
    (photos / "b" / "1.JPG").touch()
    (photos / "b" / "1.jpg.png").touch()
    inputs = find_inputs(["."], Path("../out"))[1]
    assert [item.result for item in inputs if item.name.startswith("a/")] == [
        "a/1.jpg",
        "a/1.png",
        "a/deep/2",
    ]
    results = [item.result.casefold() for item in inputs]
    assert len(set(results)) == len(results) == 7


def test_name_with_brackets_is_a_file(photos: Path) -> None:
    (photos / "[1].jpg").touch()
    assert names("[1].jpg") == ["[1].jpg"]


def test_videos_are_recognised(photos: Path) -> None:
    assert [item.name for item in find_inputs(["."], Path("../out"))[1] if item.is_video] == ["clip.mp4"]


def test_earlier_results_are_not_inputs(photos: Path) -> None:
    (photos / "out").mkdir()
    (photos / "out" / "1.jpg").touch()
    assert "out/1.jpg" in names(".")
    assert "out/1.jpg" not in names(".", output="out")
    assert names("**/1.jpg", output="out") == ["a/1.jpg", "b/1.jpg"]


@pytest.mark.parametrize(
    ("argument", "output"),
    [("a", "a"), ("a", "."), ("a/1.jpg", "a"), ("a/*.jpg", "a"), ("a/deep", "a"), ("*/1.jpg", ".")],
)
def test_inputs_are_not_overwritten(photos: Path, argument: str, output: str) -> None:
    with pytest.raises(ConfigError, match=f"--output .* {re.escape(argument)}: choose another folder"):
        find_inputs([argument], Path(output))
    (photos.parent / "link").symlink_to(photos / output)
    with pytest.raises(ConfigError, match="--output"):
        find_inputs([argument], photos.parent / "link")


@pytest.mark.parametrize(
    ("argument", "reason"),
    [
        ("no.jpg", "no such file or folder"),
        ("*.bmp", "no images or videos"),
        ("empty", "no images or videos"),
        ("*.txt", "no images or videos"),
    ],
)
def test_argument_without_inputs_is_an_error(photos: Path, argument: str, reason: str) -> None:
    (photos / "empty").mkdir()
    with pytest.raises(ConfigError, match=f"{re.escape(argument)}: {reason}"):
        find_inputs([argument, "a"], Path("../out"))
