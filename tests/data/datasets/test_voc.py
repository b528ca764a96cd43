"""Pascal VOC as published: both years, difficult objects, and missing files."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.data import DatasetCatalog
from detectron2.structures import Boxes, Instances
from helpers import published

from d2timm import ConfigError
from d2timm.data.datasets.voc import PascalVocDataset


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a small VOC dataset."""
    published.voc(tmp_path)
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    return tmp_path


def detections(entry: dict[str, Any], skipped: int | None = None) -> Instances:
    """The ground truth as detections, optionally without one object."""
    annotations = [annotation for i, annotation in enumerate(entry["annotations"]) if i != skipped]
    return Instances(
        (entry["height"], entry["width"]),
        pred_boxes=Boxes(torch.tensor([annotation["bbox"] for annotation in annotations])),
        pred_classes=torch.tensor([annotation["category_id"] for annotation in annotations]),
        scores=torch.ones(len(annotations)),
    )


def score(skipped: int | None) -> float:
    """AP of the ground truth as detections, optionally without one object of the first image."""
    voc = PascalVocDataset()
    name = voc.register("val", ["bbox"])
    (evaluator,) = voc.evaluators(name, ["bbox"], "")
    evaluator.reset()
    for number, entry in enumerate(DatasetCatalog.get(name)):
        evaluator.process([entry], [{"instances": detections(entry, None if number else skipped)}])
    return float(evaluator.evaluate()["bbox"]["AP"])


def test_splits_use_both_years_for_training_and_2007_for_validation(root: Path) -> None:
    train, val = (
        DatasetCatalog.get(PascalVocDataset().register(split, ["bbox"])) for split in ("train", "val")
    )
    folders = {Path(entry["file_name"]).parts[-3] for entry in train}
    assert folders == {"VOC2007", "VOC2012"}
    assert {Path(entry["file_name"]).parts[-3] for entry in val} == {"VOC2007"}
    assert not {e["image_id"] for e in train} & {e["image_id"] for e in val}
    assert len({a["category_id"] for entry in val for a in entry["annotations"]}) == 20


def test_missed_difficult_object_does_not_lower_ap(root: Path) -> None:
    assert score(None) == pytest.approx(100)
    missed = score(0)
    assert missed < 99, "the class has one or two objects"
    names = (root / "VOC2007/ImageSets/Main/test.txt").read_text().split()
    # detectron2 caches the files of a path, so the changed dataset needs another folder
    other = root / "again"
    published.voc(other)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DETECTRON2_DATASETS", str(other))
        file = other / "VOC2007" / "Annotations" / f"{names[0]}.xml"
        page = ET.parse(file)
        element = page.find("object/difficult")
        assert element is not None
        element.text = "1"
        page.write(file)
        assert score(0) > missed


@pytest.mark.parametrize(
    ("missing", "named"),
    [
        ("VOC2012/ImageSets/Main/trainval.txt", "$DETECTRON2_DATASETS"),
        ("VOC2012/Annotations/2008_000103.xml", "1 of 3 files"),
        ("VOC2007/JPEGImages/002100.jpg", "1 of 3 files"),
    ],
)
def test_missing_files(root: Path, missing: str, named: str) -> None:
    assert PascalVocDataset().check("train", ["bbox"]).startswith("pascal_voc train: ")
    (root / missing).unlink()
    with pytest.raises(ConfigError) as caught:
        PascalVocDataset().check("train", ["bbox"])
    message = str(caught.value)
    assert message.startswith("data.name=pascal_voc: ")
    assert str(root / missing) in message
    assert named in message
    assert "\n" not in message
    assert PascalVocDataset().check("val", ["bbox"])
