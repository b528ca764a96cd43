"""Shapes of annotation tools as boxes and masks."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco_mask

from d2timm.data.formats import geometry
from d2timm.data.formats.geometry import ShapeError

SIZE = (40, 20)
SQUARE = [(10, 5), (20, 5), (20, 15), (10, 15)]


def pixels(mask: Any) -> Any:
    """The array (H, W) of run lengths."""
    assert mask["size"] == [20, 40]
    assert sum(mask["counts"]) == 800
    return coco_mask.decode(coco_mask.frPyObjects(mask, 20, 40))


def png(array: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG", **options)
    return buffer.getvalue()


def test_rectangle_has_corners_in_any_order() -> None:
    for points in ([(10, 5), (20, 15)], [(20, 15), (10, 5)], [(10, 15), (20, 5)], SQUARE):
        assert geometry.rectangle(points) == geometry.Shape((10, 5, 10, 10))


def test_polygon_has_the_box_around_it() -> None:
    shape = geometry.polygon([(1, 2), (11, 2), (6.5, 7)])
    assert shape.box == (1, 2, 10, 5)
    assert shape.mask == [[1, 2, 11, 2, 6.5, 7]]


def test_hole_is_not_part_of_the_mask() -> None:
    shape = geometry.polygon(SQUARE, [[(12, 7), (16, 7), (16, 11), (12, 11)]], SIZE)
    assert shape.box == (10, 5, 10, 10)
    array = pixels(shape.mask)
    assert array.sum() == 100 - 16
    assert not array[8, 13]
    with pytest.raises(ShapeError, match="size"):
        geometry.polygon(SQUARE, [SQUARE], None)


def test_polygon_with_a_hole_far_outside_the_image() -> None:
    far = [(-1e7, -1e7), (1e7, -1e7), (1e7, 1e7), (-1e7, 1e7)]
    assert pixels(geometry.polygon(far, [SQUARE], SIZE).mask).sum() == 800 - 100


@pytest.mark.parametrize("points", [[], [(1, 1)], [(1, 1), (2, 2)]])
def test_polygon_needs_three_corners(points: list[tuple[float, float]]) -> None:
    with pytest.raises(ShapeError, match=f"{len(points)} corners"):
        geometry.polygon(points)


def test_circle_is_a_polygon_of_nearly_its_area() -> None:
    shape = geometry.ellipse(20, 10, (5, 5))
    assert shape.box == pytest.approx((15, 5, 10, 10))
    assert (shape.finding, shape.reason) == ("converted_shape", "circle")
    assert isinstance(shape.mask, list)
    x, y = np.reshape(shape.mask[0], (-1, 2)).T
    area = abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2
    assert area == pytest.approx(math.pi * 25, rel=0.01)


def test_ellipse_is_turned_clockwise() -> None:
    assert geometry.ellipse(20, 10, (8, 2), 90).box == pytest.approx((18, 2, 4, 16))
    with pytest.raises(ShapeError, match="radii 0 and 3"):
        geometry.ellipse(1, 1, (0, 3))


def test_turned_box_turns_clockwise_around_the_pivot() -> None:
    shape = geometry.turned_box(10, 5, (8, 2), 90, pivot=(10, 5))
    assert shape.finding == "oriented_box"
    assert isinstance(shape.mask, list)
    assert shape.mask[0] == pytest.approx([10, 5, 10, 13, 8, 13, 8, 5])
    assert shape.box == pytest.approx((8, 5, 2, 8))
    assert geometry.turned_box(10, 5, (8, 2), 360, (0, 0)) == geometry.Shape((10, 5, 8, 2))


def test_bitmap_is_placed_in_the_image_and_cut_off() -> None:
    shape = geometry.bitmap(np.ones((4, 6), bool), 37, -1, SIZE)
    assert shape.box == (37, 0, 3, 3)
    array = pixels(shape.mask)
    assert array.sum() == array[:3, 37:].sum() == 9


@pytest.mark.parametrize(
    ("array", "size", "facts"),
    [(np.zeros((2, 2), bool), SIZE, "without pixels"), (np.ones((2, 2), bool), None, "size of the image")],
)
def test_bitmap_without_pixels_or_size(array: Any, size: Any, facts: str) -> None:
    with pytest.raises(ShapeError, match=facts):
        geometry.bitmap(array, 0, 0, size)


@given(st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=1, max_size=4), st.integers(0, 16))
def test_bitmap_keeps_every_pixel(rows: list[list[bool]], top: int) -> None:
    array = np.array(rows)
    if not array.any():
        return
    expected = np.zeros((20, 40), bool)
    expected[top : top + len(rows), 7:10] = array
    shape = geometry.bitmap(array, 7, top, SIZE)
    assert np.array_equal(pixels(shape.mask), expected)
    assert shape.box == tuple(coco_mask.toBbox(coco_mask.encode(np.asfortranarray(expected, np.uint8))))


def test_mask_images_of_all_modes() -> None:
    array = np.zeros((3, 4), np.uint8)
    array[1, 1:3] = 1
    alpha = np.dstack([np.full((3, 4), 7)] * 3 + [array * 255]).astype(np.uint8)
    expected = array > 0
    for content in (png(array), png(array * 255), png(expected), png(np.dstack([array] * 3)), png(alpha)):
        assert np.array_equal(geometry.decode_png(content), expected)
    with pytest.raises(ShapeError, match="not an image"):
        geometry.decode_png(b"nonsense")


def test_union_of_polygons_is_a_list_of_them() -> None:
    other = geometry.polygon([(1, 1), (3, 1), (3, 3)])
    shape = geometry.union([geometry.polygon(SQUARE), other, geometry.rectangle([(30, 0), (32, 2)])], SIZE)
    assert shape.box == (1, 0, 31, 15)
    assert isinstance(shape.mask, list)
    assert [len(part) for part in shape.mask] == [8, 6, 8]
    assert geometry.union([geometry.rectangle(SQUARE)] * 2, None).mask is None


def test_union_with_a_bitmap_has_the_pixels_of_both() -> None:
    bitmap = geometry.bitmap(np.ones((10, 10), bool), 15, 5, SIZE)  # half of it in the square
    shape = geometry.union([geometry.polygon(SQUARE), bitmap], SIZE)
    assert shape.box == (10, 5, 15, 10)
    assert pixels(shape.mask).sum() == 150


@pytest.mark.parametrize("value", [None, True, "x", "", [], {}, math.nan, math.inf, 1e8, -1e8, 10**400])
def test_what_is_no_coordinate(value: Any) -> None:
    with pytest.raises(ShapeError, match="not a coordinate"):
        geometry.number(value)


def test_numbers_may_be_text() -> None:
    assert geometry.number("-3.5") == -3.5
    assert geometry.corners([["1", 2], (3, 4)]) == [(1, 2), (3, 4)]


@pytest.mark.parametrize("value", [None, 3, "ab", [3], [[1]], [[1, 2, 3]], [{"x": 1, "y": 2}], [None]])
def test_what_is_no_list_of_corners(value: Any) -> None:
    with pytest.raises(ShapeError, match=r"not a (list of points|point)"):
        geometry.corners(value)


@pytest.mark.parametrize(("value", "label"), [("cat", "cat"), (" cat ", "cat"), (3, "3"), (0, "0")])
def test_labels_are_text(value: Any, label: str) -> None:
    assert geometry.label_of(value) == label


@pytest.mark.parametrize("value", [None, "", "  ", [], {}, ["cat"], True])
def test_what_is_no_label(value: Any) -> None:
    with pytest.raises(ShapeError, match="no class"):
        geometry.label_of(value)
