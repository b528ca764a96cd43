"""What readers of annotation tools share: words in files, splits, images by their names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helpers.reading import PlainReading, write_image, write_text

from d2timm import ConfigError
from d2timm.data.checks.findings import Findings
from d2timm.data.formats import tool_files
from d2timm.data.formats.geometry import ShapeError
from d2timm.data.formats.tool_files import Images


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
def test_words_are_found_in_any_encoding(tmp_path: Path, encoding: str) -> None:
    file = write_text(tmp_path / "a.json", '{"shapes": [], "imagePath": ""}', encoding)
    assert tool_files.mentions(file, '"shapes"', '"imagePath"')
    assert not tool_files.mentions(file, '"shapes"', '"images"')


def test_words_of_files_that_cannot_be_read(tmp_path: Path) -> None:
    assert not tool_files.mentions(write_text(tmp_path / "empty.json", ""), "a")
    assert not tool_files.mentions(tmp_path / "missing.json", "a")
    assert not tool_files.mentions(tmp_path, "a")


def is_json(file: Path) -> bool:
    return file.suffix == ".json"


@pytest.mark.parametrize(
    ("names", "train", "val"),
    [
        (["train/a.json", "valid/b.json"], ["train/a.json"], ["valid/b.json"]),
        (["train/a.json", "val/b.json", "test/c.json", "d.txt"], ["train/a.json"], ["val/b.json"]),
        (["Training/a.json", "test/b.json"], ["Training/a.json"], ["test/b.json"]),
        (["a.json", "deep/b.json"], ["a.json", "deep/b.json"], []),
        (["train_a.json", "val_b.json"], ["train_a.json", "val_b.json"], []),
    ],
)
def test_splits_are_folders(tmp_path: Path, names: list[str], train: list[str], val: list[str]) -> None:
    for name in names:
        write_text(tmp_path / name, "{}")
    for split, expected in (("train", train), ("val", val)):
        files, _ = tool_files.files_of_split(tmp_path, split, is_json)
        assert [file.relative_to(tmp_path).as_posix() for file in files] == expected


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("instances_train2017.json", "instances_val2017.json"),
        ("my-train.json", "my-test.json"),
        ("oidv6-train-annotations-bbox.json", "validation-annotations-bbox.json"),
        ("Train.json", "Valid.json"),
    ],
)
def test_splits_may_be_words_of_names(tmp_path: Path, first: str, second: str) -> None:
    for split, name in (("train", first), ("val", second)):
        write_text(tmp_path / first, "{}")
        write_text(tmp_path / second, "{}")
        assert tool_files.files_of_split(tmp_path, split, is_json, by_stem=True)[0] == [tmp_path / name]


def test_single_file_is_the_training_split(tmp_path: Path) -> None:
    file = write_text(tmp_path / "a.json", "{}")
    assert tool_files.files_of_split(file, "train", is_json) == ([file], "")
    assert tool_files.files_of_split(file, "val", is_json) == ([], "")


@pytest.mark.parametrize(
    ("name", "local"),
    [
        ("a.jpg", "a.jpg"),
        ("images\\a b.jpg", "images/a b.jpg"),
        ("C:\\set\\a%20b.jpg", "C:/set/a%20b.jpg"),  # a percent sign of a file
        ("https://host:80/deep/a%20b.jpg?x=1#y", "deep/a b.jpg"),
        ("s3://bucket/deep/a.jpg", "deep/a.jpg"),
        ("/data/local-files/?d=deep/a%20b.jpg", "deep/a b.jpg"),
        ("http://[broken/a.jpg", "http://[broken/a.jpg"),
    ],
)
def test_local_names(name: str, local: str) -> None:
    assert tool_files.local_name(name) == local


def test_images_are_found_near_their_annotations_first(tmp_path: Path) -> None:
    for split in ("train", "val"):
        write_image(tmp_path / split / "images" / "a.jpg")
    write_image(tmp_path / "more" / "b.jpg")
    images = Images(tmp_path, PlainReading())
    assert images.find(["a.jpg"], tmp_path / "val") == tmp_path / "val" / "images" / "a.jpg"
    assert images.find(["x.jpg", "b.jpg"], tmp_path / "val") == tmp_path / "more" / "b.jpg"
    assert images.find(["/deep/c.jpg"], tmp_path / "val") == tmp_path / "val" / "deep" / "c.jpg"
    assert images.find(["a.jpg"], tmp_path) == tmp_path / "a.jpg", "two images have this name"
    for name in ("a\0.jpg", "a/" * 500):
        assert not tool_files.is_file(images.find([name], tmp_path))


def test_size_of_an_image(tmp_path: Path) -> None:
    images = Images(tmp_path, PlainReading())
    assert images.size(write_image(tmp_path / "a.jpg", (30, 10))) == (30, 10)
    assert images.size(tmp_path / "b.jpg") is None


@pytest.mark.parametrize(
    ("width", "height", "size"),
    [
        (40, 20, (40, 20)),
        ("40", 20.0, (40, 20)),
        (None, 20, None),
        (0, 20, None),
        (-1, 1, None),
        ([], {}, None),
    ],
)
def test_sizes(width: Any, height: Any, size: Any) -> None:
    assert tool_files.size_of(width, height) == size


def test_files_that_cannot_be_read_are_reported(tmp_path: Path) -> None:
    def read(file: Path) -> str:
        if file.name == "a.json":
            raise ConfigError("a.json is broken")
        return "content"

    findings = Findings()
    files = [tmp_path / "a.json", tmp_path / "deep" / "b.json"]
    read_files = list(tool_files.readable(files, read, tmp_path, findings))
    assert read_files == [(files[1], "deep/b.json", "content")]
    assert findings.samples == {"invalid_annotation": ["a.json is broken"]}
    with pytest.raises(ConfigError, match="broken"):
        list(tool_files.readable(files[:1], read, tmp_path, findings))


def test_wrong_kinds_of_json() -> None:
    assert tool_files.as_list(None, "regions") == ()
    for value in (7, "x", {}):
        with pytest.raises(ShapeError, match="regions is"):
            tool_files.as_list(value, "regions")
    with pytest.raises(ShapeError, match=r"it is \[\]"):
        tool_files.as_mapping([], "it")


def test_declared_classes_come_first() -> None:
    objects = [{"category": name, "bbox": [0, 0, 1, 1]} for name in ("b", "z", "a")]
    content = tool_files.build_with_names([(Path("a.jpg"), None, objects)], ["z", "empty"], {"b": "Bee"})
    assert [category["name"] for category in content["categories"]] == ["z", "empty", "a", "Bee"]
    assert [annotation["category_id"] for annotation in content["annotations"]] == [4, 1, 3]
