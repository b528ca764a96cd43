"""COCO annotation files: reading, and checks of their format and of what a detector needs."""

from __future__ import annotations

import contextlib
import copy
import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
from detectron2.data.datasets import load_coco_json
from helpers.coco_edits import FIRST, Edit, drop, put
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from d2timm import ConfigError
from d2timm.data.formats import coco_file

LABEL = "data.train_json=train.json"
SQUARE = [0, 0, 8, 0, 8, 8, 0, 8]

Coco = dict[str, Any]


@pytest.fixture
def coco() -> Coco:
    """Three images and four objects; ids have gaps and are not sorted."""
    boxes = [[1, 2, 8, 8], [0, 0, 4, 6], [3.5, 2, 8, 8], [1, 2, 5, 5]]
    return {
        "images": [{"id": i, "file_name": f"{i}.png", "height": 32, "width": 48} for i in (30, 10, 20)],
        "annotations": [
            {
                "id": i + 1,
                "image_id": (30, 10, 10, 20)[i],
                "category_id": (9, 2, 9, 2)[i],
                "bbox": box,
                "area": box[2] * box[3],
                "segmentation": [SQUARE],
                "keypoints": [1, 1, 2, 3, 3, 1],
                "num_keypoints": 2,
                "iscrowd": 0,
            }
            for i, box in enumerate(boxes)
        ],
        "categories": [{"id": i, "name": name, "keypoints": ["a", "b"]} for i, name in ((9, "x"), (2, "y"))],
    }


def written(coco: Any, folder: Path) -> Path:
    file = folder / "train.json"
    file.write_text(json.dumps(coco))
    return file


# Reading


def test_content_is_returned_unchanged(coco: Coco, tmp_path: Path) -> None:
    assert coco_file.read_coco(written(coco, tmp_path)) == coco


def test_file_is_read_once_until_it_changes(coco: Coco, tmp_path: Path) -> None:
    file = written(coco, tmp_path)
    first = coco_file.read_coco(file)
    assert coco_file.read_coco(file) is first
    coco["categories"][0]["name"] = "z"
    time = file.stat().st_mtime_ns
    written(coco, tmp_path)
    os.utime(file, ns=(time + 1, time + 1))
    assert coco_file.categories(coco_file.read_coco(file)) == ["y", "z"]


@pytest.mark.parametrize("text", ["", "{", '{"images": [}', "\xff"])
def test_file_that_is_not_json(tmp_path: Path, text: str) -> None:
    file = tmp_path / "bad.json"
    file.write_bytes(text.encode("latin1"))
    with pytest.raises(ConfigError, match=r"bad\.json.*JSON") as caught:
        coco_file.read_coco(file)
    assert "\n" not in str(caught.value)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"missing\.json.*No such file"):
        coco_file.read_coco(tmp_path / "missing.json")


@pytest.mark.parametrize(
    ("edit", "facts"),
    [
        (lambda coco: coco.pop("images"), "no list 'images'"),
        (lambda coco: coco.update(categories={}), "no list 'categories'"),
        (drop("annotations", "category_id"), "'annotations' has no 'category_id'"),
        (drop("annotations", "id", FIRST), "'annotations' has no 'id'"),
        (drop("images", "file_name", FIRST), "'images' has no 'file_name'"),
        (drop("images", "height", FIRST), "'images' has no 'height'"),
        (put("images", "width", "48", FIRST), "'width' in 'images' is '48'"),
        (put("categories", "name", None, FIRST), "'name' in 'categories' is None"),
        (put("annotations", "image_id", [1], FIRST), r"'image_id' in 'annotations' is \[1\]"),
        (put("images", "id", 10, slice(2)), "2 .*'images'.* 10$"),
        (put("categories", "id", 3), "2 .*'categories'.* 3$"),
        (put("annotations", "id", 1, slice(3)), "3 .*'annotations'.* 1$"),
    ],
)
def test_file_that_is_not_in_coco_format(coco: Coco, tmp_path: Path, edit: Edit, facts: str) -> None:
    edit(coco)
    with pytest.raises(ConfigError, match=rf"train\.json is not in COCO format: .*{facts}"):
        coco_file.read_coco(written(coco, tmp_path))


def test_file_names_are_optional_for_lvis(coco: Coco, tmp_path: Path) -> None:
    drop("images", "file_name")(coco)
    file = written(coco, tmp_path)
    assert coco_file.read_coco(file, file_names=False) == coco
    with pytest.raises(ConfigError, match="no 'file_name'"):
        coco_file.read_coco(file)


# Classes and keypoints


def test_categories_are_sorted_by_id(coco: Coco) -> None:
    assert coco_file.categories(coco) == ["y", "x"]


def test_keypoints_that_all_categories_share(coco: Coco) -> None:
    assert coco_file.keypoint_names(coco, LABEL) == ["a", "b"]


@pytest.mark.parametrize(
    ("edit", "category"),
    [
        (drop("categories", "keypoints"), None),
        (put("categories", "keypoints", []), None),
        (lambda coco: coco.update(categories=[]), None),
        (put("categories", "keypoints", ["a"], slice(1, None)), "'y'"),
        (drop("categories", "keypoints", slice(1, None)), "'y'"),
    ],
)
def test_missing_or_differing_keypoints(coco: Coco, edit: Edit, category: str | None) -> None:
    edit(coco)
    with pytest.raises(ConfigError, match=rf"^{LABEL}: .*'keypoints'.*{category or ''}.*roi_heads=box"):
        coco_file.keypoint_names(coco, LABEL)


# Objects


def test_usable_annotations_are_counted(coco: Coco) -> None:
    assert coco_file.check_objects(coco, ["bbox", "segm", "keypoints"], LABEL) == 4
    put("annotations", "iscrowd", 1, FIRST)(coco)
    assert coco_file.check_objects(coco, ["bbox"], LABEL) == 3
    put("annotations", "bbox", [1, 1, 0, 5], slice(1, 2))(coco)
    assert coco_file.check_objects(coco, ["bbox"], LABEL) == 2
    put("annotations", "image_id", 77, slice(2, 3))(coco)
    assert coco_file.check_objects(coco, ["bbox"], LABEL) == 1


@pytest.mark.parametrize(
    ("tasks", "edit", "facts"),
    [
        (["bbox"], lambda coco: coco.update(annotations=[]), "no usable annotations among 0"),
        (["bbox"], lambda coco: coco.update(images=[]), "no usable annotations among 4"),
        (["bbox"], lambda coco: coco.update(categories=[]), "no usable annotations among 4"),
        (["bbox"], put("annotations", "iscrowd", 1), "no usable annotations among 4"),
        (["bbox"], put("annotations", "bbox", [1, 2, 0, 4]), "no usable annotations among 4"),
        (["bbox"], put("annotations", "image_id", 5), "an image and a category of the file"),
        (["bbox"], drop("annotations", "bbox", FIRST), "1 invalid .* id 1: .*bbox"),
        (["bbox"], put("annotations", "bbox", [1, 2, 3], FIRST), "1 invalid .* id 1: .*bbox"),
        (["bbox"], put("annotations", "bbox", [1, 2, 3, "4"], FIRST), "1 invalid .* id 1: .*bbox"),
        (["bbox"], put("annotations", "bbox", [1, 2, 3, math.inf], FIRST), "1 invalid .* id 1: .*bbox"),
        (
            ["bbox"],
            put("annotations", "category_id", 5, FIRST),
            "1 invalid .* id 1: .*category of the file.*remove them",
        ),
        (
            ["bbox"],
            put("annotations", "segmentation", SQUARE, FIRST),
            "1 invalid .* id 1: .*segmentation",
        ),
        (["bbox"], put("annotations", "keypoints", 7, FIRST), "1 invalid .* id 1: .*keypoints"),
        (["segm"], drop("annotations", "segmentation"), "no segmentation: use roi_heads=box"),
        (["segm"], put("annotations", "segmentation", []), "no segmentation"),
        (
            ["segm"],
            put("annotations", "segmentation", [], FIRST),
            "1 annotations, .* id 1, .*no segmentation",
        ),
        (
            ["keypoints"],
            drop("annotations", "keypoints", FIRST),
            "1 annotations, .* id 1, .*6 numbers in 'keypoints'",
        ),
        (
            ["keypoints"],
            put("annotations", "keypoints", [1, 1, 2], FIRST),
            "1 annotations, .* id 1, .*6 numbers in 'keypoints'",
        ),
        (["keypoints"], drop("categories", "keypoints"), "'keypoints' in every category"),
    ],
)
def test_invalid_annotations(coco: Coco, tasks: list[str], edit: Edit, facts: str) -> None:
    edit(coco)
    with pytest.raises(ConfigError, match=facts) as caught:
        coco_file.check_objects(coco, tasks, LABEL)
    assert str(caught.value).startswith(LABEL)
    assert "\n" not in str(caught.value)


def test_annotations_for_other_tasks_may_be_missing(coco: Coco) -> None:
    drop("annotations", "segmentation")(coco)
    drop("annotations", "keypoints")(coco)
    drop("categories", "keypoints")(coco)
    assert coco_file.check_objects(coco, ["bbox"], LABEL) == 4


def test_crowds_need_no_mask(coco: Coco) -> None:
    put("annotations", "iscrowd", 1, FIRST)(coco)
    drop("annotations", "segmentation", FIRST)(coco)
    assert coco_file.check_objects(coco, ["segm"], LABEL) == 3


# Images


@pytest.mark.parametrize("folder", ["", "subfolder"])
def test_missing_images(coco: Coco, tmp_path: Path, folder: str) -> None:
    for image in coco["images"]:
        image["file_name"] = str(Path(folder, image["file_name"]))
        file = tmp_path / image["file_name"]
        file.parent.mkdir(exist_ok=True)
        file.touch()
    coco_file.check_images(coco, tmp_path, "train.json", "data.train_images")
    file.unlink()
    facts = rf"^data\.train_images={tmp_path}: 1 of 3 images of train\.json .*20\.png$"
    with pytest.raises(ConfigError, match=facts):
        coco_file.check_images(coco, tmp_path, "train.json", "data.train_images")


# Random content


VALUE = (
    st.none() | st.integers(-2, 30) | st.floats() | st.text(max_size=2) | st.lists(st.integers(), max_size=4)
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    key=st.sampled_from(["images", "annotations", "categories"]),
    field=st.sampled_from(["id", "image_id", "category_id", "bbox", "segmentation", "keypoints", "name"]),
    value=VALUE,
    tasks=st.sampled_from([["bbox"], ["bbox", "segm"], ["bbox", "keypoints"]]),
)
def test_any_value_of_a_field_is_valid_or_a_config_error(
    coco: Coco, tmp_path: Path, key: str, field: str, value: Any, tasks: list[str]
) -> None:
    edited = copy.deepcopy(coco)
    put(key, field, value, FIRST)(edited)
    file = written(edited, tmp_path)
    with contextlib.suppress(ConfigError):
        coco_file.check_objects(coco_file.read_coco(file), tasks, LABEL)
        assert load_coco_json(str(file), str(tmp_path))
