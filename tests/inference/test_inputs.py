"""What a command line means: which files, and what their results are called."""

from __future__ import annotations

from pathlib import Path

import pytest

from d2timm import ConfigError
from d2timm.inference.inputs import find

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
    return [given.name for given in find(arguments, Path(output))[1]]


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (["a/1.jpg"], ["1.jpg"]),
        (["a"], ["1.jpg", "1.png", "deep/2.JPG"]),
        (["."], ["a/1.jpg", "a/1.png", "a/deep/2.JPG", "b/1.jpg", "clip.mp4"]),
        (["*/*.jpg"], ["a/1.jpg", "b/1.jpg"]),
        (["**/*.[jJ][pP]*"], ["a/1.jpg", "a/deep/2.JPG", "b/1.jpg"]),
        (["*"], ["clip.mp4"]),
        (["b/1.jpg", "a/1.png", "b", "./b/../b/1.jpg"], ["b/1.jpg", "a/1.png"]),
        (["notes.txt", "a/1.jpg"], ["notes.txt", "a/1.jpg"]),  # what is named is taken, whatever its name
    ],
)
def test_files_folders_and_patterns(photos: Path, arguments: list[str], found: list[str]) -> None:
    assert names(*arguments) == found


def test_root_holds_all(photos: Path) -> None:
    assert find(["a/deep"], Path("../out"))[0] == photos / "a" / "deep"
    assert find(["a/deep", "b"], Path("../out"))[0] == photos


def test_results_are_named_apart(photos: Path) -> None:
    (photos / "b" / "1.JPG").touch()
    (photos / "b" / "1.jpg.png").touch()
    inputs = find(["."], Path("../out"))[1]
    assert [given.result for given in inputs if given.name.startswith("a/")] == [
        "a/1.jpg",
        "a/1.png",
        "a/deep/2",
    ]
    results = [given.result.casefold() for given in inputs]
    assert len(set(results)) == len(results) == 7


def test_name_with_brackets_is_a_file(photos: Path) -> None:
    (photos / "[1].jpg").touch()
    assert names("[1].jpg") == ["[1].jpg"]


def test_videos_are_known(photos: Path) -> None:
    assert [g.name for g in find(["."], Path("../out"))[1] if g.is_video] == ["clip.mp4"]


def test_earlier_results_are_no_inputs(photos: Path) -> None:
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
    with pytest.raises(ConfigError, match="holds the images themselves"):
        find([argument], Path(output))
    (photos.parent / "link").symlink_to(photos / output)
    with pytest.raises(ConfigError, match="holds the images themselves"):
        find([argument], photos.parent / "link")


@pytest.mark.parametrize(
    ("argument", "reason"),
    [
        ("no.jpg", "no.jpg: no such file or folder"),
        ("*.bmp", r"\*.bmp: no images or videos there"),
        ("empty", "empty: no images or videos there"),
        ("*.txt", "no images or videos there"),
    ],
)
def test_nothing_there_is_told(photos: Path, argument: str, reason: str) -> None:
    (photos / "empty").mkdir()
    with pytest.raises(ConfigError, match=reason):
        find([argument, "a"], Path("../out"))
