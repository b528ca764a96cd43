"""LVIS v1 as published, and its evaluation of classes that are not annotated in an image."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog
from detectron2.structures import Boxes, BoxMode, Instances
from helpers import published

from d2timm import ConfigError
from d2timm.data import catalog
from d2timm.data.datasets.lvis import LvisDataset

Box = Sequence[float]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a small LVIS dataset."""
    published.lvis(tmp_path)
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    return tmp_path


@pytest.fixture
def score(root: Path, tmp_path: Path) -> Callable[..., dict[str, float]]:
    """Evaluate the ground truth boxes as detections, with further detections in the first image."""

    def evaluate(*more: tuple[int, Box, float]) -> dict[str, float]:
        name = LvisDataset().register("val", ["bbox"])
        (evaluator,) = LvisDataset().evaluators(name, ["bbox"], str(tmp_path / "inference"))
        evaluator.reset()
        for number, entry in enumerate(DatasetCatalog.get(name)):
            boxes = [
                (a["category_id"], BoxMode.convert(a["bbox"], a["bbox_mode"], BoxMode.XYXY_ABS), 0.5)
                for a in entry["annotations"]
            ]
            boxes += more if number == 0 else []
            evaluator.process([entry], [{"instances": detections(entry, boxes)}])
        return dict(evaluator.evaluate()["bbox"])

    return evaluate


def detections(entry: dict[str, Any], boxes: Sequence[tuple[int, Box, float]]) -> Instances:
    return Instances(
        (entry["height"], entry["width"]),
        pred_boxes=Boxes(torch.tensor([box for _, box, _ in boxes], dtype=torch.float64)),
        pred_classes=torch.tensor([class_index for class_index, _, _ in boxes]),
        scores=torch.tensor([score for _, _, score in boxes], dtype=torch.float64),
    )


def test_images_come_from_both_splits_of_coco(root: Path) -> None:
    dicts = DatasetCatalog.get(LvisDataset().register("val", ["bbox"]))
    files = [Path(entry["file_name"]) for entry in dicts]
    assert {file.parent.name for file in files} == {"train2017", "val2017"}
    assert all(file.is_file() for file in files)


def test_all_1203_classes(root: Path) -> None:
    content = json.loads((root / "lvis" / "lvis_v1_val.json").read_text())
    names = [c["name"] for c in sorted(content["categories"], key=lambda c: c["id"])]
    assert len(names) == 1203
    # detectron2 names a class by its first synonym
    synonyms = [c["synonyms"][0] for c in sorted(content["categories"], key=lambda c: c["id"])]
    assert LvisDataset().classes() == synonyms


def test_detection_is_a_false_positive_only_if_its_class_is_marked_as_absent(
    score: Callable[..., dict[str, float]], root: Path
) -> None:
    file = root / "lvis" / "lvis_v1_val.json"
    content = json.loads(file.read_text())
    first = content["images"][0]
    present = {a["category_id"] for a in content["annotations"] if a["image_id"] == first["id"]}
    elsewhere = {a["category_id"] for a in content["annotations"]} - present
    category_id = min(elsewhere)
    corner = (0.0, 0.0, 8.0, 8.0)
    assert score((category_id - 1, corner, 0.9))["AP"] == pytest.approx(100), (
        "the class is not annotated in this image"
    )
    first["neg_category_ids"], first["not_exhaustive_category_ids"] = [category_id], []
    file.write_text(json.dumps(content))
    assert score((category_id - 1, corner, 0.9))["AP"] < 99


def test_detection_of_an_incompletely_annotated_class_is_not_a_false_positive(
    score: Callable[..., dict[str, float]], root: Path
) -> None:
    file = root / "lvis" / "lvis_v1_val.json"
    content = json.loads(file.read_text())
    first = content["images"][0]
    category_id = next(a["category_id"] for a in content["annotations"] if a["image_id"] == first["id"])
    corner = (0.0, 0.0, 4.0, 4.0)
    first["not_exhaustive_category_ids"] = []
    file.write_text(json.dumps(content))
    assert score((category_id - 1, corner, 0.9))["AP"] < 99
    first["not_exhaustive_category_ids"] = [category_id]
    file.write_text(json.dumps(content))
    assert score((category_id - 1, corner, 0.9))["AP"] == pytest.approx(100)


def test_limit_of_300_detections_applies_to_all_classes_of_an_image_together(
    score: Callable[..., dict[str, float]],
) -> None:
    boxes = np.random.default_rng(0).integers(0, 20, (300, 2))
    more = [(1000, (x, y, x + 9.0, y + 9.0), 0.9) for x, y in boxes.tolist()]
    assert score(*more[:100])["AP"] == pytest.approx(100), "this class is not annotated"
    assert score(*more)["AP"] < 99, "the limit excludes the correct detections"


def test_missing_file(root: Path) -> None:
    assert LvisDataset().check("val", ["bbox"]).startswith("lvis_v1 val: ")
    (root / "lvis" / "lvis_v1_val.json").unlink()
    with pytest.raises(ConfigError, match=r"data\.name=lvis_v1.*lvis_v1_val\.json: no such file"):
        LvisDataset().check("val", ["bbox"])


def test_number_of_classes_without_files() -> None:
    data = {"name": "lvis_v1", "settings": {"lvis_v1": {}}, **dict.fromkeys(catalog.PATHS)}
    assert catalog.num_classes(data) == 1203
