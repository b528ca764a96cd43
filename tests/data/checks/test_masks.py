"""Masks: polygons and run lengths as tools write them, as pycocotools reads them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from d2timm.data.checks import masks
from d2timm.data.checks.masks import area_of, box_of, crosses_itself, read_mask, turn_mask

SIZE = (60, 40)  # width, height
SQUARE = [10, 10, 20, 10, 20, 20, 10, 20]
EIGHT = [10, 10, 20, 20, 20, 10, 10, 20]


@pytest.mark.parametrize(
    ("value", "polygons", "kind"),
    [
        ([SQUARE], [SQUARE], ""),
        (SQUARE, [SQUARE], "flat_polygon"),
        ([[10, 10], [20, 10], [20, 20]], [[10, 10, 20, 10, 20, 20]], "flat_polygon"),
        ([[[10, 10], [20, 10], [20, 20]]], [[10, 10, 20, 10, 20, 20]], ""),
        ([[1, 2, 3, 4], SQUARE, [5, 5] * 3], [SQUARE], "part_of_mask"),
        ([["a"] * 6, SQUARE], [SQUARE], "part_of_mask"),
        ([SQUARE, [0, 0, 5, 0, 5, 5]], [SQUARE, [0, 0, 5, 0, 5, 5]], ""),
        ([EIGHT], [EIGHT], ""),
        *((value, None, "") for value in (None, [], {}, "")),
        *(
            ([points], None, "degenerate_polygon")
            for points in ([], [1, 2], [1, 2, 3, 4], [1, 1, 2, 2, 3, 3])
        ),
        ([[70, 10, 80, 10, 80, 20]], None, "degenerate_polygon"),
        ([[10.1, 10.1, 20, 10.1, 20, 10.3, 10.1, 10.3]], None, "degenerate_polygon"),
        *(
            (value, None, "invalid_mask")
            for value in (7, True, "x", [SQUARE[:7]], [[None] * 6], [[[SQUARE]]])
        ),
        ([[0, 0, 1e6, 0, 1e6, 1e6]], None, "invalid_mask"),
    ],
)
def test_polygons(value: Any, polygons: list[list[float]] | None, kind: str) -> None:
    assert read_mask(value, SIZE) == (polygons, kind)


@given(st.lists(st.floats(-80, 120), min_size=6, max_size=12).filter(lambda points: len(points) % 2 == 0))
def test_polygon_is_used_if_it_has_a_pixel(points: list[float]) -> None:
    pixels = coco_mask.decode(coco_mask.frPyObjects([points], SIZE[1], SIZE[0])).sum()
    mask, _ = read_mask([points], SIZE)
    if mask is None:
        assert pixels == 0
    elif pixels == 0:  # it is thicker than a pixel on average, but never covers the centre of one
        assert area_of(mask) > 1


@given(st.binary(min_size=1, max_size=120), st.integers(1, 12))
def test_run_lengths_are_those_of_pycocotools(data: bytes, height: int) -> None:
    width = -(-len(data) // height)
    pixels = np.zeros((height, width), np.uint8, order="F")
    pixels.ravel(order="K")[: len(data)] = np.frombuffer(data, np.uint8) % 2
    packed = coco_mask.encode(pixels)
    mask, kind = read_mask({**packed, "counts": packed["counts"].decode()}, (width, height))
    if not pixels.any():
        assert (mask, kind) == (None, "degenerate_polygon")
        return
    assert isinstance(mask, dict)
    assert kind == ""
    assert np.array_equal(coco_mask.decode(mask), pixels)
    assert area_of(mask) == pixels.sum()
    assert box_of(mask) == list(coco_mask.toBbox(packed))


@given(st.text(st.characters(min_codepoint=40, max_codepoint=120), max_size=12))
def test_any_text_of_run_lengths_is_safe(text: str) -> None:
    mask, kind = read_mask({"size": [40, 60], "counts": text}, SIZE)
    assert (mask is None) == (kind != "")
    if mask is not None:
        assert coco_mask.decode(mask).shape == (40, 60)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ({"size": [60, 40], "counts": [0, 2400]}, "other_rle_size"),
        ({"size": [40, 60], "counts": [2400]}, "degenerate_polygon"),
        ({"size": [40, 60], "counts": [0, 2399]}, "invalid_mask"),
        ({"size": [40, 60], "counts": [0, 2401]}, "invalid_mask"),
        ({"size": [40, 60], "counts": [-1, 2401]}, "invalid_mask"),
        ({"size": [40, 60], "counts": [0.5, 2399.5]}, "invalid_mask"),
        ({"size": [40, 60], "counts": None}, "invalid_mask"),
        ({"size": [40], "counts": [0, 2400]}, "invalid_mask"),
        ({"counts": [0, 2400]}, "invalid_mask"),
    ],
)
def test_run_lengths_that_cannot_be_used(value: Any, kind: str) -> None:
    assert read_mask(value, SIZE) == (None, kind)


@pytest.mark.parametrize("counts", [[0, 2400], [0.0, "2400"], [0, 1200, 0, 1200]])
def test_uncompressed_run_lengths(counts: list[Any]) -> None:
    mask, kind = read_mask({"size": ["40", 60.0], "counts": counts}, SIZE)
    assert kind == ""
    assert mask is not None
    assert area_of(mask) == 2400


def test_area_and_box_of_polygons() -> None:
    assert area_of([[0, 0, 5, 0, 5, 5], SQUARE]) == 112.5
    assert box_of([[0, 0, 5, 0, 5, 5], SQUARE]) == [0, 0, 20, 20]
    assert area_of([EIGHT]) == 0


def test_polygons_that_cross_themselves() -> None:
    repeated = [10, 10, 10, 10, 20, 10, 20, 20, 20, 20, 10, 20]
    assert crosses_itself([[SQUARE], [SQUARE, EIGHT], [repeated], [EIGHT]]) == [False, True, False, True]
    assert crosses_itself([]) == []


def test_turned_masks() -> None:
    def points(values: list[float]) -> list[float]:
        return [v + 1 for v in values]

    assert turn_mask([[0, 0, 5, 0, 5, 5]], points, np.fliplr) == [[1, 1, 6, 1, 6, 6]]
    rle = masks._compress(np.asfortranarray([[1, 0, 0], [1, 0, 0]], dtype=np.uint8))
    turned = turn_mask(rle, points, lambda pixels: np.ascontiguousarray(pixels.T))
    assert isinstance(turned, dict)
    assert coco_mask.decode(turned).tolist() == [[1, 1], [0, 0], [0, 0]]
