"""The drawing of the embedded dataset's images and of the annotations that belong to them."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask

from d2timm.data.datasets import shapes
from d2timm.errors import ConfigError


def test_images_are_the_same_in_every_call() -> None:
    first, first_shapes = shapes.draw_image("train", 5)
    again, again_shapes = shapes.draw_image("train", 5)
    assert first.shape == (shapes.SIZE, shapes.SIZE, 3)
    assert first.dtype == np.uint8
    assert np.array_equal(first, again)
    assert first_shapes == again_shapes
    for split, index in (("train", 6), ("val", 5)):
        assert not np.array_equal(first, shapes.draw_image(split, index)[0])


def test_annotations_fit_the_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a black background without noise, all other pixels belong to shapes."""
    black = np.zeros((shapes.SIZE, shapes.SIZE, 3), np.float32)
    monkeypatch.setattr(shapes, "_background", lambda rng: black.copy())
    monkeypatch.setattr(shapes, "PIXEL_NOISE", 0)
    for index in range(20):
        image, drawn = shapes.draw_image("train", index)
        polygons = [list(polygon) for shape in drawn for polygon in shape.polygons]
        parts = coco_mask.frPyObjects(polygons, shapes.SIZE, shapes.SIZE)
        union = coco_mask.decode(coco_mask.merge(parts))
        inside = np.asarray(cv2.erode(union, np.ones((3, 3)))) == 1
        outside = np.asarray(cv2.dilate(union, np.ones((3, 3)))) == 0
        painted = image.max(axis=2) > 0
        assert painted[inside].all()
        assert painted[outside].sum() <= 2, "at most faint pixels at a sharp tip"


def test_occlusion_is_limited() -> None:
    occluded = []
    for index in range(40):
        layers = shapes._arrange(np.random.default_rng(index))
        above = np.zeros_like(layers[0].whole)
        for layer in reversed(layers):
            occluded.append(1 - (layer.whole & ~above).sum() / layer.whole.sum())
            above |= layer.whole
    assert max(occluded) <= 0.36
    assert np.mean(np.array(occluded) > 0.1) > 0.1, "occlusion must occur"


def test_polygons_follow_the_edges_of_mask_pixels() -> None:
    mask = np.zeros((shapes.SIZE * shapes.SUPERSAMPLE,) * 2, np.uint8)
    mask[41:80, 101:300] = 255  # x from 25.25 to 75, y from 10.25 to 20
    shape = shapes._describe("square", mask)
    assert shape is not None
    corners = {(25.25, 10.25), (75.0, 10.25), (75.0, 20.0), (25.25, 20.0)}
    assert {tuple(xy) for xy in np.reshape(shape.polygons, (-1, 2)).tolist()} == corners
    assert shape.bbox == (25.25, 10.25, 49.75, 9.75)
    assert shape.area == 49.75 * 9.75


@pytest.mark.parametrize(("radius", "describable"), [(3, True), (30, False)])
def test_mask_with_a_large_hole_has_no_polygons(radius: int, describable: bool) -> None:
    mask = np.zeros((shapes.SIZE * shapes.SUPERSAMPLE,) * 2, np.uint8)
    cv2.circle(mask, (300, 300), 100, (255,), cv2.FILLED)
    cv2.circle(mask, (300, 300), radius, (0,), cv2.FILLED)
    assert (shapes._describe("circle", mask) is not None) == describable


def test_unknown_split() -> None:
    with pytest.raises(ConfigError, match=r"'test'.*train, val"):
        shapes.draw_image("test", 0)
