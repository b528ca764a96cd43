"""Folders of COCO files: the layouts of several tools, their splits and image folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from helpers.reading import PlainReading, write_image, write_text

from d2timm import ConfigError
from d2timm.data.formats.coco_folder import FORMAT


def coco(name: str = "a.jpg", label: str = "cat") -> dict[str, Any]:
    return {
        "info": {"year": "2024"},
        "images": [{"id": 1, "file_name": name, "width": 40, "height": 20}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [10, 5, 10, 10], "area": 100, "iscrowd": 0}
        ],
        "categories": [{"id": 1, "name": label, "supercategory": ""}],
    }


def write(root: Path, file: str, image: str, name: str | None = None, label: str = "cat") -> None:
    write_image(root / image)
    write_text(root / file, json.dumps(coco(name or Path(image).name, label)))


def read(root: Path, split: str = "train") -> tuple[Path, str]:
    """The path of the only image, and the class of its object."""
    source = FORMAT.open(root, split, f"data.root={root}")
    assert source is not None
    content = source.read(PlainReading())
    (image,), (category,) = content["images"], content["categories"]
    return source.images / image["file_name"], category["name"]


@pytest.mark.parametrize(
    ("file", "image"),
    [
        ("{}/_annotations.coco.json", "{}/a.jpg"),  # Roboflow
        ("annotations/instances_{}.json", "images/{}/a.jpg"),  # CVAT
        ("annotations/instances_{}.json", "images/a.jpg"),
        ("annotations/instances_{}2017.json", "{}2017/a.jpg"),  # COCO
        ("annotations/instances_{}2017.json", "images/{}2017/a.jpg"),
        ("annotations/custom_{}.json", "{}2017/a.jpg"),
        ("{}/labels.json", "{}/data/a.jpg"),  # FiftyOne
        ("{}.json", "images/a.jpg"),
        ("{}.json", "{}/a.jpg"),
        ("annotations_{}.json", "JPEGImages/a.jpg"),
    ],
)
@pytest.mark.parametrize("val", ["val", "valid", "Validation", "test"])
def test_layouts_with_splits(tmp_path: Path, file: str, image: str, val: str) -> None:
    for split, label in (("train", "cat"), (val, "dog")):
        write(tmp_path, file.format(split), image.format(split), label=label)
    assert FORMAT.recognize(tmp_path)
    assert read(tmp_path) == (tmp_path / image.format("train"), "cat")
    assert read(tmp_path, "val") == (tmp_path / image.format(val), "dog")


@pytest.mark.parametrize(
    ("file", "image", "name"),
    [
        ("labels.json", "data/a.jpg", "a.jpg"),  # FiftyOne
        ("result.json", "images/a.jpg", "images/a.jpg"),  # Label Studio
        ("annotations/instances_default.json", "images/a.jpg", "a.jpg"),  # CVAT
        ("annotations/instances_default.json", "images/deep/a.jpg", "deep/a.jpg"),
        ("set-3.json", "a.jpg", "a.jpg"),  # coco-annotator
        ("_annotations.coco.json", "a.jpg", "a.jpg"),
        ("annotations.json", "JPEGImages/a.jpg", "JPEGImages/a.jpg"),  # labelme2coco
    ],
)
def test_layouts_without_splits(tmp_path: Path, file: str, image: str, name: str) -> None:
    write(tmp_path, file, image, name)
    assert FORMAT.recognize(tmp_path)
    assert read(tmp_path) == (tmp_path / image, "cat")
    assert FORMAT.open(tmp_path, "val", "data.root") is None


def test_file_itself_can_be_named(tmp_path: Path) -> None:
    write(tmp_path, "annotations.json", "images/a.jpg")
    assert FORMAT.recognize(tmp_path / "annotations.json")
    assert read(tmp_path / "annotations.json") == (tmp_path / "images" / "a.jpg", "cat")


def test_test_split_serves_only_without_another(tmp_path: Path) -> None:
    for split in ("train", "valid", "test"):
        write(tmp_path, f"{split}/_annotations.coco.json", f"{split}/a.jpg", label=split)
    assert read(tmp_path, "val")[1] == "valid"


def test_images_elsewhere_are_left_to_the_check(tmp_path: Path) -> None:
    write(tmp_path, "annotations/instances_default.json", "pictures/deep/more/a.jpg", "C:\\set\\a.jpg")
    source = FORMAT.open(tmp_path, "train", "data.root")
    assert source is not None
    assert source.images == tmp_path


def test_other_files_of_coco_are_not_read(tmp_path: Path) -> None:
    write(tmp_path, "annotations/instances_train.json", "images/a.jpg")
    for name in ("panoptic_train", "stuff_train", "person_keypoints_train", "captions_train"):
        write(tmp_path, f"annotations/{name}.json", "images/a.jpg", label="other")
    source = FORMAT.open(tmp_path, "train", "data.root")
    assert source is not None
    assert [file.name for file in source.files] == ["instances_train.json"]
    assert "person_keypoints_train.json" in source.note


def test_several_files_of_a_split_are_refused(tmp_path: Path) -> None:
    for name in ("old", "new"):
        write(tmp_path, f"{name}.json", "a.jpg")
    with pytest.raises(ConfigError, match=r"new\.json, old\.json; set data\.train_json and data\.train_im"):
        FORMAT.open(tmp_path, "train", "data.root")


def test_files_of_several_folders_are_merged(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write(tmp_path, f"{name}/labels.json", f"{name}/data/{name}.jpg")
    source = FORMAT.open(tmp_path, "train", "data.root")
    assert source is not None
    names = [Path(image["file_name"]) for image in source.read(PlainReading())["images"]]
    assert names == [tmp_path / name / "data" / f"{name}.jpg" for name in ("one", "two")]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_encodings(tmp_path: Path, encoding: str) -> None:
    write(tmp_path, "labels.json", "data/a.jpg")
    write_text(tmp_path / "labels.json", json.dumps(coco("data/a.jpg")), encoding)
    assert FORMAT.recognize(tmp_path)
    assert read(tmp_path)[0] == tmp_path / "data" / "a.jpg"


def test_folder_of_another_format(tmp_path: Path) -> None:
    write_text(tmp_path / "a.json", '{"shapes": [], "imagePath": "a.jpg"}')
    assert not FORMAT.recognize(tmp_path)
    with pytest.raises(ConfigError, match="'images', 'annotations' and 'categories'"):
        FORMAT.open(tmp_path, "train", "data.root")
