"""Annotations are transformed exactly as by detectron2, one object at a time."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
from detectron2.data import detection_utils
from detectron2.data import transforms as T
from detectron2.structures import BoxMode
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from d2timm.data.objects import transform_objects

HEIGHT, WIDTH = 40, 60
NUMBERS = st.floats(0, 60, width=64) | st.integers(0, 60)
FLIP = np.array([1, 0])

TRANSFORMS = {
    "none": [],
    "resize": [T.ResizeTransform(HEIGHT, WIDTH, 57, 91)],
    "resize and flip": [T.ResizeTransform(HEIGHT, WIDTH, 23, 31), T.HFlipTransform(31)],
    "crop": [T.CropTransform(7, 5, 40, 30), T.ResizeTransform(30, 40, 50, 50)],
    "pad": [T.PadTransform(3, 4, 5, 6, WIDTH, HEIGHT), T.VFlipTransform(HEIGHT + 10)],
    "turn": [T.RotationTransform(HEIGHT, WIDTH, 30)],
}


def run_lengths() -> Any:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[8:28, 12:18] = 1
    return coco_mask.encode(np.asfortranarray(mask))


@st.composite
def objects(draw: Any) -> dict[str, Any]:
    kind, count = draw(st.sampled_from(["lists", "arrays", "run lengths", "none"])), draw(st.integers(0, 3))
    polygons = [draw(st.lists(NUMBERS, min_size=6, max_size=6)) for _ in range(count)]
    box = draw(st.lists(NUMBERS, min_size=4, max_size=4))
    found = {"bbox": box, "bbox_mode": draw(st.sampled_from([BoxMode.XYWH_ABS, BoxMode.XYXY_ABS]))}
    found["category_id"] = draw(st.integers(0, 3))
    if draw(st.booleans()):
        found["bbox"] = tuple(box)
    if draw(st.booleans()):
        found["keypoints"] = [5, 6, 2, 7.5, 8, 1]
    if kind != "none":
        arrays = [np.array(polygon) for polygon in polygons] if kind == "arrays" else polygons
        found["segmentation"] = run_lengths() if kind == "run lengths" else arrays
    return found


def equal(first: Any, second: Any) -> bool:
    if isinstance(first, list):
        return len(first) == len(second) and all(map(equal, first, second))
    return np.array_equal(first, second) and getattr(first, "dtype", 0) == getattr(second, "dtype", 0)


@pytest.mark.parametrize("name", TRANSFORMS)
@given(annotations=st.lists(objects(), max_size=4))
def test_results_are_those_of_detectron2(name: str, annotations: list[dict[str, Any]]) -> None:
    transforms = T.TransformList(TRANSFORMS[name])
    image = transforms.apply_image(np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    size = (image.shape[0], image.shape[1])
    expected = [
        detection_utils.transform_instance_annotations(
            annotation, transforms, size, keypoint_hflip_indices=FLIP
        )
        for annotation in copy.deepcopy(annotations)
    ]
    before = repr(annotations)
    transformed = transform_objects(annotations, transforms, size, FLIP)
    assert repr(annotations) == before
    assert [list(annotation) for annotation in transformed] == [list(annotation) for annotation in expected]
    for ours, theirs in zip(transformed, expected, strict=True):
        assert all(equal(ours[key], theirs[key]) for key in theirs)


def test_rotated_boxes_are_transformed_by_detectron2() -> None:
    annotation = {"bbox": [20.0, 20, 10, 6, 30], "bbox_mode": BoxMode.XYWHA_ABS}
    transforms, size = T.TransformList([T.HFlipTransform(WIDTH)]), (HEIGHT, WIDTH)
    (box,) = transform_objects([annotation], transforms, size, None)
    expected = detection_utils.transform_instance_annotations(dict(annotation), transforms, size)
    assert np.array_equal(box["bbox"], expected["bbox"])
