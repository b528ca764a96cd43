"""The evaluator's numbers are pycocotools' own, for boxes and for masks."""

from __future__ import annotations

import contextlib
import io
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from d2timm.build import instantiate
from d2timm.evaluate import PRECISIONS, RECALLS, CocoEvaluator, coco_tasks

TWELVE = (*PRECISIONS, *RECALLS)


@pytest.fixture(scope="module")
def truth(small_coco: Any) -> COCO:
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(small_coco.val_json)


@pytest.fixture
def evaluator(tiny: Callable[..., Any], tmp_path: Path) -> CocoEvaluator:
    """That of the mask recipe."""
    loaders = tiny("mask_rcnn_timm.py", tmp_path).dataloader
    instantiate(loaders.test.dataset)  # as in a run, where it is loaded first
    made: CocoEvaluator = instantiate(loaders.evaluator)
    made.reset()
    return made


def class_number(truth: COCO, category_id: int) -> int:
    return sorted(truth.getCatIds()).index(category_id)


def perfect(truth: COCO, image: dict[str, Any]) -> Instances:
    """The annotations of an image as detections."""
    annotations = truth.imgToAnns[image["id"]]
    corners = [[x, y, x + w, y + h] for x, y, w, h in (a["bbox"] for a in annotations)]
    return Instances(
        (image["height"], image["width"]),
        pred_boxes=Boxes(torch.tensor(corners, dtype=torch.float64)),
        pred_masks=torch.tensor(np.stack([truth.annToMask(a) for a in annotations])).bool(),
        pred_classes=torch.tensor([class_number(truth, a["category_id"]) for a in annotations]),
        scores=torch.linspace(0.9, 0.6, len(annotations)),
    )


def disturbed(truth: COCO, image: dict[str, Any], rng: np.random.Generator) -> Instances:
    """Detections of all qualities: moved, of wrong classes, doubled, and some of nothing."""
    found = perfect(truth, image)
    repeats = torch.tensor(rng.integers(0, len(found), 3 * len(found)))
    found = found[repeats]
    n = len(found)
    found.pred_boxes = Boxes(found.pred_boxes.tensor + torch.tensor(rng.normal(0, 4, (n, 4))))
    shifts = rng.integers(-5, 6, (n, 2)).tolist()
    moved = [torch.roll(m, s, (0, 1)) for m, s in zip(found.pred_masks, shifts, strict=True)]
    found.pred_masks = torch.stack(moved)
    wrong = torch.tensor(rng.random(n) < 0.2)
    found.pred_classes[wrong] = (found.pred_classes[wrong] + 1) % 4
    found.scores = torch.tensor(rng.random(n))
    return found


def evaluate(
    evaluator: CocoEvaluator, truth: COCO, detections: Callable[[dict[str, Any]], Instances]
) -> dict[str, dict[str, float]]:
    for image in truth.dataset["images"]:
        inputs = {"image_id": image["id"], "height": image["height"], "width": image["width"]}
        evaluator.process([inputs], [{"instances": detections(image)}])
    return dict(evaluator.evaluate())


def reference(truth: COCO, results: list[dict[str, Any]], task: str) -> dict[str, float]:
    """The twelve numbers and AP of each class, by pycocotools."""
    if task == "segm":  # else areas would be those of the boxes
        results = [{k: v for k, v in r.items() if k != "bbox"} for r in results]
    with contextlib.redirect_stdout(io.StringIO()):
        coco_eval = COCOeval(truth, truth.loadRes(results), task)
        coco_eval.evaluate()
        coco_eval.accumulate()
        coco_eval.summarize()
    numbers = {k: v * 100 if v >= 0 else math.nan for k, v in zip(TWELVE, coco_eval.stats, strict=True)}
    for k, category in enumerate(coco_eval.params.catIds):
        precision = coco_eval.eval["precision"][:, :, k, 0, -1]  # all areas, most detections
        valid = precision[precision > -1]
        numbers[f"AP-{truth.cats[category]['name']}"] = valid.mean() * 100 if valid.size else math.nan
    return numbers


@pytest.mark.parametrize("seed", range(3))
def test_numbers_are_those_of_pycocotools(evaluator: CocoEvaluator, truth: COCO, seed: int) -> None:
    rng = np.random.default_rng(seed)
    found = {image["id"]: disturbed(truth, image, rng) for image in truth.dataset["images"]}
    numbers = evaluate(evaluator, truth, lambda image: found[image["id"]])

    categories = sorted(truth.getCatIds())
    results = []
    for image_id, instances in found.items():
        for box, mask, label, score in zip(
            instances.pred_boxes.tensor.tolist(),
            instances.pred_masks,
            instances.pred_classes.tolist(),
            instances.scores.tolist(),
            strict=True,
        ):
            rle = coco_mask.encode(np.asfortranarray(mask.numpy().astype(np.uint8)))
            results.append(
                {
                    "image_id": image_id,
                    "category_id": categories[label],
                    "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]],
                    "segmentation": rle,
                    "score": score,
                }
            )
    assert set(numbers) == {"bbox", "segm"}
    for task, got in numbers.items():
        expected = reference(truth, results, task)
        assert set(got) == set(expected)
        assert 0 < expected["AP"] < 100, "neither nothing nor everything is right"
        for key, value in expected.items():
            assert got[key] == pytest.approx(value, abs=1e-6, nan_ok=True), f"{task} {key}"


def test_perfect_detections_are_100(evaluator: CocoEvaluator, truth: COCO) -> None:
    numbers = evaluate(evaluator, truth, lambda image: perfect(truth, image))
    there = {truth.cats[a["category_id"]]["name"] for a in truth.dataset["annotations"]}
    for task in ("bbox", "segm"):
        for key in ("AP", "AP50", "AP75", "APs", "AR100", *(f"AP-{name}" for name in there)):
            assert numbers[task][key] == pytest.approx(100, abs=1e-6), f"{task} {key}"


def test_nothing_detected_is_0_for_every_task(evaluator: CocoEvaluator, truth: COCO) -> None:
    numbers = evaluate(evaluator, truth, lambda image: perfect(truth, image)[:0])
    expected = {*TWELVE} | {f"AP-{category['name']}" for category in truth.cats.values()}
    assert set(numbers) == {"bbox", "segm"}
    for task in numbers.values():
        assert task == dict.fromkeys(expected, 0.0)


def test_detections_are_written_in_coco_format(evaluator: CocoEvaluator, truth: COCO, tmp_path: Path) -> None:
    evaluate(evaluator, truth, lambda image: perfect(truth, image))
    written = json.loads((tmp_path / "inference" / "coco_instances_results.json").read_text())
    assert len(written) == len(truth.anns)
    assert {d["category_id"] for d in written} == {a["category_id"] for a in truth.anns.values()}


def test_masks_are_evaluated_where_the_detector_has_them(tiny: Callable[..., Any], tmp_path: Path) -> None:
    assert coco_tasks(None) == ["bbox"]
    for recipe, tasks in {"faster_rcnn_timm.py": ["bbox"], "mask_rcnn_timm.py": ["bbox", "segm"]}.items():
        assert instantiate(tiny(recipe, tmp_path).dataloader.evaluator.tasks) == tasks
