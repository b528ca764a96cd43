"""Cityscapes' metrics of the images that were processed."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.data import DatasetCatalog
from detectron2.structures import Boxes, Instances
from helpers import published

from d2timm.data.datasets.cityscapes import CityscapesDataset
from d2timm.evaluation.cityscapes import CityscapesMaskEvaluator, CityscapesSemanticEvaluator


@pytest.fixture
def evaluated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Evaluate the first images of the validation split: (kind, tasks, output, count) -> metrics."""
    published.cityscapes(tmp_path)
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))

    def evaluate(kind: type, tasks: list[str], output: Any, count: int) -> dict[str, float]:
        name = CityscapesDataset().register("val", tasks)
        evaluators = CityscapesDataset().evaluators(name, tasks, str(tmp_path / "out"))
        (evaluator,) = (e for e in evaluators if isinstance(e, kind))
        evaluator.reset()
        for entry in DatasetCatalog.get(name)[:count]:
            evaluator.process([entry], [output(entry["height"], entry["width"])])
        (metrics,) = evaluator.evaluate().values()
        return metrics

    return evaluate


def no_objects(height: int, width: int) -> dict[str, Any]:
    return {
        "instances": Instances(
            (height, width),
            pred_boxes=Boxes(torch.zeros(0, 4)),
            scores=torch.zeros(0),
            pred_classes=torch.zeros(0, dtype=torch.int64),
            pred_masks=torch.zeros(0, height, width, dtype=torch.bool),
        )
    }


def only_road(height: int, width: int) -> dict[str, Any]:
    scores = torch.zeros(19, height, width)
    scores[0] = 1
    return {"sem_seg": scores}


@pytest.mark.parametrize("count", [1, 2])
def test_classes_without_objects_have_no_ap(evaluated: Any, count: int) -> None:
    metrics = evaluated(CityscapesMaskEvaluator, ["bbox", "segm"], no_objects, count)
    assert metrics["AP"] == 0
    assert {0.0} == {value for value in metrics.values() if not math.isnan(value)}
    assert math.isnan(metrics["AP-rider"])


def test_only_processed_images_are_evaluated(evaluated: Any) -> None:
    ious = [evaluated(CityscapesSemanticEvaluator, ["sem_seg"], only_road, n)["IoU-road"] for n in (1, 2)]
    assert ious[0] != ious[1]
    assert 0 < min(ious) < max(ious) < 100
