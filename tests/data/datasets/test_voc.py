"""Pascal VOC as it is published: both years, difficult objects, and what must be there."""

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
from d2timm.data.datasets.voc import PascalVoc


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a sample."""
    published.voc(tmp_path)
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    return tmp_path


def found(entry: dict[str, Any], skipped: int | None = None) -> Instances:
    """The truth as detections, but for one object."""
    things = [thing for i, thing in enumerate(entry["annotations"]) if i != skipped]
    return Instances(
        (entry["height"], entry["width"]),
        pred_boxes=Boxes(torch.tensor([thing["bbox"] for thing in things])),
        pred_classes=torch.tensor([thing["category_id"] for thing in things]),
        scores=torch.ones(len(things)),
    )


def score(skipped: int | None) -> float:
    """AP of what is true, but for one object of the first image."""
    voc = PascalVoc()
    name = voc.register("val", ["bbox"])
    (evaluator,) = voc.evaluators(name, ["bbox"], "")
    evaluator.reset()
    for number, entry in enumerate(DatasetCatalog.get(name)):
        evaluator.process([entry], [{"instances": found(entry, None if number else skipped)}])
    return float(evaluator.evaluate()["bbox"]["AP"])


def test_trained_on_both_years_and_evaluated_on_the_test_set_of_2007(root: Path) -> None:
    train, val = (DatasetCatalog.get(PascalVoc().register(split, ["bbox"])) for split in ("train", "val"))
    folders = {Path(entry["file_name"]).parts[-3] for entry in train}
    assert folders == {"VOC2007", "VOC2012"}
    assert {Path(entry["file_name"]).parts[-3] for entry in val} == {"VOC2007"}
    assert not {e["image_id"] for e in train} & {e["image_id"] for e in val}
    assert len({thing["category_id"] for entry in val for thing in entry["annotations"]}) == 20


def test_difficult_object_need_not_be_found(root: Path) -> None:
    assert score(None) == pytest.approx(100)
    missed = score(0)
    assert missed < 99, "the only one or one of two of its class"
    listed = (root / "VOC2007/ImageSets/Main/test.txt").read_text().split()
    # files are read once in a process, so the set lies in another folder
    other = root / "again"
    published.voc(other)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DETECTRON2_DATASETS", str(other))
        file = other / "VOC2007" / "Annotations" / f"{listed[0]}.xml"
        page = ET.parse(file)
        element = page.find("object/difficult")
        assert element is not None
        element.text = "1"
        page.write(file)
        assert score(0) > missed


@pytest.mark.parametrize(
    ("gone", "told"),
    [
        ("VOC2012/ImageSets/Main/trainval.txt", "is not there; published sets are looked for below $DETECT"),
        ("VOC2012/Annotations/2008_000103.xml", "1 of 3 files that "),
        ("VOC2007/JPEGImages/002100.jpg", "1 of 3 files that "),
    ],
)
def test_what_is_not_there_is_told(root: Path, gone: str, told: str) -> None:
    assert PascalVoc().check("train", ["bbox"]).startswith("pascal_voc train: ")
    (root / gone).unlink()
    with pytest.raises(ConfigError) as caught:
        PascalVoc().check("train", ["bbox"])
    message = str(caught.value)
    assert message.startswith("data.name=pascal_voc: ")
    assert str(root / gone) in message
    assert told in message
    assert "\n" not in message
    assert PascalVoc().check("val", ["bbox"])
