"""Cityscapes as published: groups of objects, regions that are not evaluated, and missing files."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from helpers import published

from d2timm import ConfigError
from d2timm.data.datasets.base import IGNORED
from d2timm.data.datasets.cityscapes import CityscapesDataset
from d2timm.data.datasets.panoptic import read_semantic

OBJECTS, PIXELS = ["bbox", "segm"], ["sem_seg"]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a small Cityscapes dataset."""
    published.cityscapes(tmp_path)
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    return tmp_path / "cityscapes"


def read(split: str, tasks: list[str]) -> list[dict[str, Any]]:
    return list(DatasetCatalog.get(CityscapesDataset().register(split, tasks)))


def test_classes() -> None:
    assert CityscapesDataset().classes()[:4] == ["person", "rider", "car", "truck"]
    assert len(CityscapesDataset().classes()) == 8
    pixels = CityscapesDataset().semantic_classes(PIXELS)
    assert (len(pixels), pixels[0], pixels[-1]) == (19, "road", "bicycle")


def test_image_ids_follow_the_file_names(root: Path) -> None:
    dicts = read("val", OBJECTS)
    assert [entry["image_id"] for entry in dicts] == [1, 2, 3, 4]
    names = [entry["file_name"] for entry in dicts]
    assert names == sorted(names)


def test_group_of_objects_is_a_crowd(root: Path) -> None:
    cars = CityscapesDataset().classes().index("car")
    for entry in read("val", OBJECTS):
        groups = [annotation for annotation in entry["annotations"] if annotation["iscrowd"]]
        assert [annotation["category_id"] for annotation in groups] == [cars] * len(groups)
    assert groups


def test_pixels_that_are_not_evaluated_are_ignored(root: Path) -> None:
    entry = read("train", PIXELS)[0]
    pixels = read_semantic(entry)
    assert pixels.shape == (entry["height"], entry["width"])
    bottom = pixels[-2:]  # the ego vehicle
    assert (bottom == IGNORED).mean() > 0.5
    names = CityscapesDataset().semantic_classes(PIXELS)
    seen = {names[number] for number in np.unique(pixels) if number != IGNORED}
    assert {"road", "sky", "car"} <= seen


def test_boxes_are_evaluated_without_masks(root: Path, tmp_path: Path) -> None:
    name = CityscapesDataset().register("val", ["bbox"])
    (evaluator,) = CityscapesDataset().evaluators(name, ["bbox"], str(tmp_path / "inference"))
    assert evaluator._tasks == ["bbox"]


def test_evaluation_leaves_no_files(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    monkeypatch.chdir(folder)
    had_in1d = hasattr(np, "in1d")
    name = CityscapesDataset().register("val", PIXELS)
    (evaluator,) = CityscapesDataset().evaluators(name, PIXELS, str(folder))
    evaluator.reset()
    for entry in DatasetCatalog.get(name):
        scores = torch.zeros(19, entry["height"], entry["width"])
        scores[0] = 1
        evaluator.process([entry], [{"sem_seg": scores}])
    numbers = evaluator.evaluate()["sem_seg"]
    assert 0 < numbers["IoU-road"] < 100
    assert numbers["IoU-car"] == 0
    assert np.isnan(numbers["IoU-wall"]), "no pixels of this class"
    assert numbers["mIoU"] == numbers["IoU"] == pytest.approx(numbers["IoU-road"] / 6), (
        "the mean over 6 classes"
    )
    assert hasattr(np, "in1d") == had_in1d
    assert not list(folder.iterdir())


@pytest.mark.parametrize("package", ["cityscapesscripts", "shapely"])
def test_missing_package(root: Path, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else find(name))
    with pytest.raises(ConfigError, match=rf"{package}.*pip install 'd2timm\[cityscapes\]'"):
        CityscapesDataset().check("val", OBJECTS)


@pytest.mark.parametrize(
    ("missing", "named"),
    [
        ("leftImg8bit/val", "$DETECTRON2_DATASETS"),
        ("gtFine/val", "$DETECTRON2_DATASETS"),
        ("leftImg8bit/val/lindau", "CITY/*_leftImg8bit.png"),
        (
            "gtFine/val/lindau/lindau_000101_000019_gtFine_polygons.json",
            "lindau/lindau_000101_000019",
        ),
        ("leftImg8bit/val/lindau/lindau_000102_000019_leftImg8bit.png", "lindau/lindau_000102_000019"),
    ],
)
def test_missing_files(root: Path, missing: str, named: str) -> None:
    assert CityscapesDataset().check("val", OBJECTS) == f"cityscapes val: {root / 'leftImg8bit' / 'val'}"
    path = root / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(ConfigError) as caught:
        CityscapesDataset().check("val", OBJECTS)
    message = str(caught.value)
    assert message.startswith("data.name=cityscapes: ")
    assert named in message
    assert "\n" not in message
    assert CityscapesDataset().check("train", OBJECTS)


def test_datasets_in_other_folders_have_other_names(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = CityscapesDataset().register("val", OBJECTS)
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "other"))
    second = CityscapesDataset().register("val", OBJECTS)
    assert first != second
    assert "/" not in first, "detectron2 uses it as a file name"
    assert MetadataCatalog.get(first).gt_dir == str(root / "gtFine" / "val")
