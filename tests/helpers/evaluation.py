"""Evaluate detections of a dataset that is written for a test."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.data import MetadataCatalog
from detectron2.structures import Boxes, Instances
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from d2timm.evaluation.coco import CocoEvaluator

__all__ = ["as_detections", "evaluator_of", "indexed", "process", "run_lengths"]

Coco = dict[str, Any]
Metrics = dict[str, dict[str, float]]


def run_lengths(mask: NDArray[np.uint8]) -> dict[str, Any]:
    """The compressed run lengths of a mask (H, W)."""
    rle = coco_mask.encode(np.asfortranarray(mask))
    return {**rle, "counts": rle["counts"].decode()}


def indexed(coco: Coco) -> COCO:
    """The content of a COCO file in pycocotools' class."""
    index = COCO()
    index.dataset = coco
    with contextlib.redirect_stdout(io.StringIO()):
        index.createIndex()
    return index


def evaluator_of(coco: Coco, folder: Path, tasks: Sequence[str], **more: Any) -> CocoEvaluator:
    """An evaluator for a dataset that is written to a folder."""
    file = folder / "annotations.json"
    file.write_text(json.dumps(coco))
    categories = sorted(coco["categories"], key=lambda category: category["id"])
    MetadataCatalog.get(str(file)).set(
        json_file=str(file),
        thing_classes=[category["name"] for category in categories],
        thing_dataset_id_to_contiguous_id={category["id"]: i for i, category in enumerate(categories)},
        keypoint_names=categories[0].get("keypoints", []),
    )
    evaluator = CocoEvaluator(str(file), tasks, **more)
    evaluator.reset()
    return evaluator


def process(
    evaluator: CocoEvaluator, coco: Coco, detections: list[Coco], images: Iterable[int] | None = None
) -> Metrics:
    """Pass detections to an evaluator in the form in which a model returns them.

    Args:
        evaluator: its metrics are returned.
        coco: the dataset.
        detections: in COCO's format of results, with run lengths.
        images: ids of the images that are processed; None: all.
    """
    ids = sorted(category["id"] for category in coco["categories"])
    for image in coco["images"]:
        if images is not None and image["id"] not in images:
            continue
        own = [d for d in detections if d["image_id"] == image["id"]]
        instances = Instances((image["height"], image["width"]))
        boxes = np.array([d["bbox"] for d in own], float).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        instances.pred_boxes = Boxes(torch.tensor(boxes))
        instances.scores = torch.tensor([d["score"] for d in own], dtype=torch.float64)
        instances.pred_classes = torch.tensor([ids.index(d["category_id"]) for d in own])
        if own and "segmentation" in own[0]:
            masks = [coco_mask.decode(d["segmentation"]) for d in own]
            instances.pred_masks = torch.tensor(np.stack(masks)).bool()
        if own and "keypoints" in own[0]:
            points = [np.array(d["keypoints"], float).reshape(-1, 3) for d in own]
            instances.pred_keypoints = torch.tensor(np.stack(points)) + torch.tensor([0.5, 0.5, 0])
        evaluator.process([{"image_id": image["id"]}], [{"instances": instances}])
    return dict(evaluator.evaluate())


def as_detections(coco: Coco, tasks: Sequence[str]) -> list[Coco]:
    """The annotations of a dataset as detections of score 1, without crowds and with what the tasks need.

    What an annotation lacks follows from its box.
    """
    index = indexed(coco)
    detections = []
    for annotation in coco["annotations"]:
        if annotation.get("iscrowd"):
            continue
        x, y, w, h = annotation["bbox"]
        detection = {key: annotation[key] for key in ("image_id", "category_id", "bbox")} | {"score": 1.0}
        if "segm" in tasks:
            polygons = annotation.get("segmentation") or [[x, y, x + w, y, x + w, y + h, x, y + h]]
            detection["segmentation"] = index.annToRLE({**annotation, "segmentation": polygons})
        if "keypoints" in tasks:
            centre = [x + w / 2, y + h / 2, 1] * len(coco["categories"][0]["keypoints"])
            detection["keypoints"] = annotation.get("keypoints") or centre
        detections.append(detection)
    return detections
