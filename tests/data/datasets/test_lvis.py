"""LVIS v1 as it is published, and its rules for classes that an image's annotations say nothing of."""

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
    """The folder of a sample."""
    published.lvis(tmp_path)
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    return tmp_path


@pytest.fixture
def score(root: Path, tmp_path: Path) -> Callable[..., dict[str, float]]:
    """Numbers of boxes of all that is true, and of further ones in the first image."""

    def evaluate(*more: tuple[int, Box, float]) -> dict[str, float]:
        name = LvisDataset().register("val", ["bbox"])
        (evaluator,) = LvisDataset().evaluators(name, ["bbox"], str(tmp_path / "inference"))
        evaluator.reset()
        for number, entry in enumerate(DatasetCatalog.get(name)):
            things = [
                (thing["category_id"], BoxMode.convert(thing["bbox"], thing["bbox_mode"], BoxMode.XYXY_ABS))
                for thing in entry["annotations"]
            ]
            found = [(kind, box, 0.5) for kind, box in things] + list(more if number == 0 else [])
            evaluator.process([entry], [{"instances": detections(entry, found)}])
        return dict(evaluator.evaluate()["bbox"])

    return evaluate


def detections(entry: dict[str, Any], found: Sequence[tuple[int, Box, float]]) -> Instances:
    return Instances(
        (entry["height"], entry["width"]),
        pred_boxes=Boxes(torch.tensor([box for _, box, _ in found], dtype=torch.float64)),
        pred_classes=torch.tensor([kind for kind, _, _ in found]),
        scores=torch.tensor([score for _, _, score in found], dtype=torch.float64),
    )


def test_images_are_those_of_both_splits_of_coco(root: Path) -> None:
    dicts = DatasetCatalog.get(LvisDataset().register("val", ["bbox"]))
    files = [Path(entry["file_name"]) for entry in dicts]
    assert {file.parent.name for file in files} == {"train2017", "val2017"}
    assert all(file.is_file() for file in files)


def test_classes_are_the_1203(root: Path) -> None:
    content = json.loads((root / "lvis" / "lvis_v1_val.json").read_text())
    names = [c["name"] for c in sorted(content["categories"], key=lambda c: c["id"])]
    assert len(names) == 1203
    # detectron2 calls classes by the first of their synonyms
    synonyms = [c["synonyms"][0] for c in sorted(content["categories"], key=lambda c: c["id"])]
    assert LvisDataset().classes() == synonyms


def test_class_that_is_told_to_be_absent_counts_and_one_of_which_nothing_is_told_does_not(
    score: Callable[..., dict[str, float]], root: Path
) -> None:
    file = root / "lvis" / "lvis_v1_val.json"
    content = json.loads(file.read_text())
    first = content["images"][0]
    present = {a["category_id"] for a in content["annotations"] if a["image_id"] == first["id"]}
    elsewhere = {a["category_id"] for a in content["annotations"]} - present
    kind = min(elsewhere)
    corner = (0.0, 0.0, 8.0, 8.0)
    assert score((kind - 1, corner, 0.9))["AP"] == pytest.approx(100), "nobody looked for it"
    first["neg_category_ids"], first["not_exhaustive_category_ids"] = [kind], []
    file.write_text(json.dumps(content))
    assert score((kind - 1, corner, 0.9))["AP"] < 99


def test_class_of_which_not_all_objects_are_told_is_not_held_against_a_detector(
    score: Callable[..., dict[str, float]], root: Path
) -> None:
    file = root / "lvis" / "lvis_v1_val.json"
    content = json.loads(file.read_text())
    first = content["images"][0]
    kind = next(a["category_id"] for a in content["annotations"] if a["image_id"] == first["id"])
    corner = (0.0, 0.0, 4.0, 4.0)
    first["not_exhaustive_category_ids"] = []
    file.write_text(json.dumps(content))
    assert score((kind - 1, corner, 0.9))["AP"] < 99
    first["not_exhaustive_category_ids"] = [kind]
    file.write_text(json.dumps(content))
    assert score((kind - 1, corner, 0.9))["AP"] == pytest.approx(100)


def test_300_detections_of_an_image_count_whatever_their_classes(
    score: Callable[..., dict[str, float]],
) -> None:
    boxes = np.random.default_rng(0).integers(0, 20, (300, 2))
    more = [(1000, (x, y, x + 9.0, y + 9.0), 0.9) for x, y in boxes.tolist()]
    assert score(*more[:100])["AP"] == pytest.approx(100), "nothing is told of this class"
    assert score(*more)["AP"] < 99, "no room is left for what is true"


def test_what_is_not_there_is_told(root: Path) -> None:
    assert LvisDataset().check("val", ["bbox"]).startswith("lvis_v1 val: ")
    (root / "lvis" / "lvis_v1_val.json").unlink()
    with pytest.raises(ConfigError, match=r"data.name=lvis_v1: val json=.*lvis_v1_val.json: no such file; "):
        LvisDataset().check("val", ["bbox"])


def test_number_of_classes_without_files() -> None:
    data = {"name": "lvis_v1", "settings": {"lvis_v1": {}}, **dict.fromkeys(catalog.PATHS)}
    assert catalog.num_classes(data) == 1203
