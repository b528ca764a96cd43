"""Pictures of detections: a class has the same colour in all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from detectron2.data.catalog import Metadata
from detectron2.structures import Boxes, BoxMode, Instances
from detectron2.utils.colormap import colormap

from d2timm.visualize.visualizer import ALPHA, DetectionVisualizer, draw, write_picture

SIZE = (120, 160)
GREY = np.full((*SIZE, 3), 128, np.uint8)
NAMES = Metadata(thing_classes=["boat", "buoy"], stuff_classes=["things", "sea"], keypoint_names=["bow"])


def objects(*classes: int, masks: bool = True) -> dict[str, Any]:
    """An output with objects from left to right."""
    boxes = [[10.0 + 50 * i, 10.0, 50.0 + 50 * i, 100.0] for i in range(len(classes))]
    instances = Instances(SIZE, pred_boxes=Boxes(torch.tensor(boxes).reshape(-1, 4)))
    instances.scores, instances.pred_classes = torch.full((len(classes),), 0.9), torch.tensor(classes).long()
    if masks:
        instances.pred_masks = torch.zeros(len(classes), *SIZE, dtype=torch.bool)
        for mask, (x0, y0, x1, y1) in zip(instances.pred_masks, boxes, strict=True):
            mask[int(y0) : int(y1), int(x0) : int(x1)] = True
    return {"instances": instances}


def spot(picture: np.ndarray, object_: int) -> np.ndarray:
    """The mean colour at the bottom of an object, away from its label."""
    return picture[70:90, 20 + 50 * object_ : 40 + 50 * object_].mean((0, 1))


def test_class_has_one_colour_in_all_pictures() -> None:
    first, second = draw(GREY, objects(0, 1, 0), NAMES), draw(GREY, objects(1, 0), NAMES)
    assert first.shape == GREY.shape
    np.testing.assert_allclose(spot(first, 0), spot(first, 2), atol=2)
    np.testing.assert_allclose(spot(first, 1), spot(second, 0), atol=2)
    assert np.abs(spot(first, 0) - spot(first, 1)).max() > 30
    for place, picture in ((0, first), (1, second)):
        expected = (1 - ALPHA) * 128 + ALPHA * colormap(rgb=True)[0]
        np.testing.assert_allclose(spot(picture, place), expected, atol=3)
    assert np.array_equal(first, draw(GREY, objects(0, 1, 0), NAMES)), "drawing is deterministic"


def test_colours_of_the_dataset_are_kept() -> None:
    names = Metadata(**NAMES.as_dict(), thing_colors=[(255, 0, 0), (0, 0, 255)])
    red, _, blue = spot(draw(GREY, objects(1), names), 0)
    assert blue > 180 > 80 > red


def test_boxes_without_masks_are_not_filled() -> None:
    picture = draw(GREY, objects(0, masks=False), NAMES)
    np.testing.assert_allclose(spot(picture, 0), 128, atol=2)
    assert not np.array_equal(picture, draw(GREY, objects(), NAMES))


@pytest.mark.parametrize("first", [0, 1])
def test_annotations_may_lack_masks_and_keypoints(first: int) -> None:
    names = Metadata(**{**NAMES.as_dict(), "keypoint_names": ["bow", "stern"]})
    boxes = [[10 + 50 * i, 10, 50 + 50 * i, 100] for i in range(2)]
    annotations: list[dict[str, Any]] = [
        {"bbox": box, "bbox_mode": BoxMode.XYXY_ABS, "category_id": i} for i, box in enumerate(boxes)
    ]
    x0, y0, x1, y1 = boxes[first]
    annotations[first]["segmentation"] = [[x0, y0, x1, y0, x1, y1, x0, y1]]
    annotations[first]["keypoints"] = [x0 + 5, y0 + 60, 2, x0 + 9, y0 + 60, 2]
    annotations[1 - first]["segmentation"] = []
    visualizer = DetectionVisualizer(GREY, names)
    visualizer.draw_dataset_dict({"annotations": annotations})
    picture = np.asarray(visualizer.output.get_image())
    assert np.abs(spot(picture, first) - 128).max() > 20, "the mask is filled"
    np.testing.assert_allclose(spot(picture, 1 - first), 128, atol=2)
    edge = picture[70:90, 8 + 50 * (1 - first) : 13 + 50 * (1 - first)].astype(int)
    assert np.abs(edge - 128).max() > 20, "the other object is drawn as a box"


def test_small_images_are_enlarged() -> None:
    assert draw(GREY, objects(0), NAMES, 400).shape == (360, 480, 3)
    assert draw(GREY, objects(0), NAMES, 160).shape == (120, 160, 3)


def test_semantic_and_panoptic_regions_are_drawn() -> None:
    logits = torch.zeros(2, *SIZE)
    logits[1, :60] = 1
    logits[0, 60:] = 1
    picture = draw(GREY, {"sem_seg": logits}, NAMES)
    assert np.abs(picture[10].mean(0) - picture[110].mean(0)).max() > 20
    segments = torch.zeros(SIZE, dtype=torch.int32)
    segments[:60] = 1
    infos = [{"id": 1, "isthing": False, "category_id": 1, "area": 60 * 160}]
    panoptic = draw(GREY, {"panoptic_seg": (segments, infos), **objects(0)}, NAMES)
    np.testing.assert_allclose(panoptic[10].mean(0), picture[10].mean(0), atol=2)
    np.testing.assert_allclose(panoptic[110].mean(0), 128, atol=2)


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_pictures_are_written(suffix: str, tmp_path: Path) -> None:
    picture = np.full((20, 30, 3), (200, 100, 0), np.uint8)
    write_picture(tmp_path / f"x{suffix}", picture)
    read = cv2.imread(str(tmp_path / f"x{suffix}"))
    np.testing.assert_allclose(read[..., ::-1].astype(int), picture, atol=3)
    assert len(list(tmp_path.iterdir())) == 1
