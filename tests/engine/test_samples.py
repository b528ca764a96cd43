"""Samples of a detector's output: thumbnails, objects and detections at their scale."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, BoxMode, Instances
from PIL import Image
from pycocotools import mask as coco_mask

from d2timm.engine.samples import LOWEST, MOST, make_sample
from d2timm.runs.samples import SIDE, Sample, Samples

SIZE = (600, 960)  # twice a thumbnail
BOX = (100.0, 200.0, 300.0, 400.0)
HALF = (50.0, 100.0, 150.0, 200.0)
SQUARE = [100, 200, 300, 200, 300, 400, 100, 400]


def instances(*scores: float, masks: bool = False) -> Instances:
    n = len(scores)
    result = Instances(
        SIZE,
        pred_boxes=Boxes(torch.tensor([BOX] * n).reshape(n, 4)),
        scores=torch.tensor(scores),
        pred_classes=torch.arange(n) % 2,
    )
    if masks:
        result.pred_masks = torch.zeros(n, *SIZE, dtype=torch.bool)
        result.pred_masks[:, 200:400, 100:300] = True
    return result


def entry(**annotation: Any) -> dict[str, Any]:
    thing = {"bbox": list(BOX), "bbox_mode": BoxMode.XYXY_ABS, "category_id": 1, **annotation}
    return {"file_name": "/photographs/a.jpg", "annotations": [thing]}


def sample(found: Instances, annotated: dict[str, Any] | None = None, size: tuple[int, int] = SIZE) -> Sample:
    image = np.full((*size, 3), (200, 100, 50), np.uint8)
    made = make_sample(annotated or entry(), image, {"instances": found})
    assert made
    return made


def test_thumbnail() -> None:
    made = sample(instances())
    assert (made.name, made.width, made.height) == ("a.jpg", SIDE, 300)
    with Image.open(io.BytesIO(made.jpeg)) as image:
        assert (image.format, image.size) == ("JPEG", (SIDE, 300))
        assert np.abs(np.array(image)[100, 100].astype(int) - (200, 100, 50)).max() < 5, "RGB"


def test_small_image_is_not_enlarged() -> None:
    made = sample(instances(), size=(40, 30))
    assert (made.width, made.height) == (30, 40)


def test_boxes_are_in_pixels_of_the_thumbnail() -> None:
    made = sample(instances(0.9))
    assert (made.objects[0].label, made.objects[0].box, made.objects[0].score) == (1, HALF, None)
    assert (made.detections[0].label, made.detections[0].box) == (0, HALF)
    assert made.detections[0].score == pytest.approx(0.9, abs=1e-3)
    other = sample(instances(), entry(bbox=[100, 200, 200, 200], bbox_mode=BoxMode.XYWH_ABS))
    assert other.objects[0].box == HALF


def test_confident_detections_are_kept() -> None:
    scores = [LOWEST / 2, 0.3, 0.8, *[0.1] * MOST]
    found = [shape.score for shape in sample(instances(*scores)).detections]
    assert len(found) == MOST
    assert found[:3] == pytest.approx([0.8, 0.3, 0.1])
    assert [shape.score for shape in sample(instances(LOWEST / 2, 0.3)).detections] == pytest.approx([0.3])


def area(outline: list[float]) -> float:
    x, y = np.reshape(outline, (-1, 2)).T
    return abs(float(x @ np.roll(y, 1) - y @ np.roll(x, 1))) / 2


def test_masks_are_polygons() -> None:
    run_lengths = coco_mask.frPyObjects([SQUARE], *SIZE)[0]
    uncompressed = {"size": list(SIZE), "counts": [0, SIZE[0] * SIZE[1]]}
    for segmentation, expected in (
        ([SQUARE], 100 * 100),
        (run_lengths, 100 * 100),
        (uncompressed, 300 * SIDE),
    ):
        made = sample(instances(0.9, masks=True), entry(segmentation=segmentation))
        for shape, pixels in ((made.objects[0], expected), (made.detections[0], 100 * 100)):
            (outline,) = shape.outlines
            assert len(outline) <= 12
            assert area(outline) == pytest.approx(pixels, rel=0.03)
    assert sample(instances(0.9), entry(segmentation=[SQUARE])).objects[0].outlines == [], (
        "as the model has none"
    )


def test_empty_masks_and_flat_polygons_have_no_outline() -> None:
    found = instances(0.9, masks=True)
    found.pred_masks[:] = False
    made = sample(found, entry(segmentation=[[1, 1, 2, 2, 3, 3]]))
    assert made.detections[0].outlines == []
    assert made.objects[0].outlines == []


def test_detectors_without_objects_have_no_samples() -> None:
    image = np.zeros((*SIZE, 3), np.uint8)
    assert make_sample(entry(), image, {"sem_seg": torch.zeros(3, *SIZE)}) is None


def test_image_without_annotations() -> None:
    made = sample(instances(0.9), {"file_name": "a.jpg"})
    assert made.objects == []


def test_run_keeps_samples(tiny_run: Path) -> None:
    samples = Samples.read(tiny_run)
    assert samples
    assert samples.classes == ["triangle", "star", "circle", "square"]
    assert len(samples.images) == 3, "the validation set"
    assert all(image.objects for image in samples.images)
    assert {(image.width, image.height) for image in samples.images} == {(96, 80), (64, 64), (72, 96)}
