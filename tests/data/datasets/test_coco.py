"""COCO 2017 as published: its classes and tasks, missing files, and its content in detectron2's format."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from helpers import published

from d2timm import ConfigError, get_config
from d2timm.config.build import resolve_dataset
from d2timm.data import catalog
from d2timm.data.datasets.coco import CocoDataset, CocoKeypointsDataset, CocoPanopticDataset
from d2timm.data.datasets.shapes_dataset import ShapesDataset


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a small COCO 2017 dataset."""
    published.coco(tmp_path)
    published.coco_keypoints(tmp_path)
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    return tmp_path / "coco"


def data(recipe: str, name: str) -> Any:
    cfg = get_config(recipe)
    cfg.data.name = name
    resolve_dataset(cfg)
    return cfg.data


def test_classes_are_known_without_files() -> None:
    assert len(CocoDataset().classes()) == 80
    assert CocoKeypointsDataset().classes() == ["person"]
    assert CocoKeypointsDataset().keypoints()[:3] == ["nose", "left_eye", "right_eye"]
    stuff = CocoPanopticDataset().stuff()
    assert (len(stuff), stuff[0], stuff[-1]) == (53, "banner", "rug-merged")
    assert ShapesDataset().semantic_classes(["sem_seg"]) == [
        "circle",
        "triangle",
        "square",
        "star",
        "background",
    ]


def test_objects_are_one_pixel_class_only_for_panoptic_detectors() -> None:
    panoptic = CocoPanopticDataset().semantic_classes(["bbox", "segm", "sem_seg", "panoptic_seg"])
    assert (len(panoptic), panoptic[:2]) == (54, ["things", "banner"])
    semantic = CocoPanopticDataset().semantic_classes(["sem_seg"])
    assert (len(semantic), semantic[0], semantic[80]) == (133, "person", "banner")


@pytest.mark.parametrize(
    ("recipe", "name", "missing", "setting"),
    [
        ("mask_rcnn", "coco_2017", "annotations/instances_val2017.json", "val json={}: no such file"),
        ("mask_rcnn", "coco_2017", "val2017", "val images={}: no such folder"),
        (
            "keypoint_rcnn",
            "coco_2017_keypoints",
            "annotations/person_keypoints_val2017.json",
            "val json={}: no such file",
        ),
        (
            "panoptic_fpn",
            "coco_2017_panoptic",
            "annotations/panoptic_val2017.json",
            "val panoptic_json={}: no such file",
        ),
        ("semantic_fpn", "coco_2017_panoptic", "panoptic_val2017", "val panoptic={}: no such folder"),
    ],
)
def test_missing_files(root: Path, recipe: str, name: str, missing: str, setting: str) -> None:
    node = data(f"{recipe}_timm.py", name)
    assert catalog.check_split(node, "val", catalog.tasks_of(node)).startswith(f"{name} val: ")
    path = root / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(ConfigError) as caught:
        catalog.check_split(node, "val", catalog.tasks_of(node))
    message = str(caught.value)
    assert message.startswith(f"data.name={name}: {setting.format(path)}")
    assert "$DETECTRON2_DATASETS" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("recipe", "name", "missing", "alternative"),
    [
        ("keypoint_rcnn", "coco_2017", "keypoints", "coco_2017_keypoints"),
        ("panoptic_fpn", "coco_2017", "sem_seg, panoptic_seg", "coco_2017_panoptic"),
        ("semantic_fpn", "lvis_v1", "sem_seg", "coco_2017_panoptic"),
        ("mask_rcnn", "pascal_voc", "segm", "coco_2017"),
        ("panoptic_fpn", "cityscapes", "panoptic_seg", "coco_2017_panoptic"),
    ],
)
def test_missing_annotations(root: Path, recipe: str, name: str, missing: str, alternative: str) -> None:
    node = data(f"{recipe}_timm.py", name)
    with pytest.raises(ConfigError, match=rf"data\.name={name} .* {missing}, ") as caught:
        catalog.check_split(node, "train", catalog.tasks_of(node))
    assert alternative in str(caught.value).split("data.name=")[-1]
    assert "\n" not in str(caught.value)


def test_image_without_objects_is_kept_for_semantic_segmentation(root: Path) -> None:
    file = root / "annotations" / "instances_train2017.json"
    content = json.loads(file.read_text())
    empty = content["images"][1]["id"]
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] != empty]
    file.write_text(json.dumps(content))
    images = {
        recipe: {entry["image_id"] for entry in catalog.dataset_dicts(data(recipe, name), "train")}
        for recipe, name in {
            "mask_rcnn_timm.py": "coco_2017",
            "semantic_fpn_timm.py": "coco_2017_panoptic",
        }.items()
    }
    assert empty not in images["mask_rcnn_timm.py"]
    assert images["semantic_fpn_timm.py"] == images["mask_rcnn_timm.py"] | {empty}


def test_training_image_without_keypoints_is_left_out(root: Path) -> None:
    file = root / "annotations" / "person_keypoints_train2017.json"
    content = json.loads(file.read_text())
    first = content["images"][0]["id"]
    for annotation in content["annotations"]:
        if annotation["image_id"] == first:
            annotation.update(keypoints=[0] * 51, num_keypoints=0)
    file.write_text(json.dumps(content))
    node = data("keypoint_rcnn_timm.py", "coco_2017_keypoints")
    assert first not in {entry["image_id"] for entry in catalog.dataset_dicts(node, "train")}


def test_crowd_is_read_as_run_lengths(root: Path) -> None:
    entry = catalog.dataset_dicts(data("mask_rcnn_timm.py", "coco_2017"), "val")[0]
    (crowd,) = [annotation for annotation in entry["annotations"] if annotation["iscrowd"]]
    assert crowd["segmentation"]["size"] == [entry["height"], entry["width"]]


def test_detectors_in_one_process_have_separate_pixel_classes(root: Path) -> None:
    names = []
    for recipe, count in {"panoptic_fpn_timm.py": 54, "semantic_fpn_timm.py": 133}.items():
        name = catalog.dataset_name(data(recipe, "coco_2017_panoptic"), "val")
        assert len(MetadataCatalog.get(name).stuff_classes) == count
        labels = {info["label"] for entry in DatasetCatalog.get(name) for info in entry["segments_info"]}
        assert max(labels) < count
        names.append(name)
    assert names[0] != names[1]
