"""Masks as annotation tools write them, read into what pycocotools and detectron2 use.

Polygons become lists of at least three corners with an area, run lengths the compressed ones of pycocotools.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from .values import as_number, as_numbers

__all__ = ["Mask", "area_of", "box_of", "crosses_itself", "read_mask", "turn_mask"]

Polygon: TypeAlias = list[float]  # x0, y0, x1, y1, …
RunLengths: TypeAlias = dict[str, Any]  # size [height, width] and compressed counts
Mask: TypeAlias = "list[Polygon] | RunLengths"
Size: TypeAlias = tuple[int, int]  # (width, height)


def read_mask(value: Any, size: Size) -> tuple[Mask | None, str]:
    """Read a segmentation.

    Args:
        value: a list of polygons, one polygon, or run lengths, compressed or not; None and [] for no mask.
        size: (width, height) of the image.

    Returns:
        The mask, or None, and the kind of finding, "" if there is nothing to report.
    """
    if value is None or value in ([], {}, ""):
        return None, ""
    if isinstance(value, dict):
        return _read_run_lengths(value, size)
    if not isinstance(value, list):
        return None, "invalid_mask"
    flat = not any(isinstance(polygon, list) for polygon in value)
    polygons = [value] if flat else value
    numbers = [points for polygon in polygons if (points := _as_polygon(polygon))]
    if not numbers:
        empty = all(isinstance(p, list) and as_numbers(p) is not None for p in polygons)
        return None, "degenerate_polygon" if empty else "invalid_mask"
    if flat:
        return numbers, "flat_polygon"
    return numbers, "part_of_mask" if len(numbers) < len(polygons) else ""


def area_of(mask: Mask) -> float:
    """The number of pixels of a mask; for polygons the enclosed area, overlaps counted twice, as in COCO."""
    if isinstance(mask, dict):
        return float(coco_mask.area(mask))
    return sum(_polygon_area(polygon) for polygon in mask)


def box_of(mask: Mask) -> list[float]:
    """The tight box of a mask: (left, top, width, height)."""
    if isinstance(mask, dict):
        return [float(side) for side in coco_mask.toBbox(mask)]
    xs, ys = ([v for polygon in mask for v in polygon[axis::2]] for axis in (0, 1))
    return [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]


def turn_mask(
    mask: Mask,
    points: Callable[[list[float]], list[float]],
    pixels: Callable[[NDArray[Any]], NDArray[Any]],
) -> Mask:
    """Rotate or mirror a mask.

    Args:
        mask: a mask.
        points: transforms the coordinates x0, y0, x1, y1, …
        pixels: transforms an array (H, W).
    """
    if isinstance(mask, dict):
        return _compress(np.asfortranarray(pixels(coco_mask.decode(mask))))
    return [points(polygon) for polygon in mask]


def crosses_itself(polygons: list[list[Polygon]]) -> list[bool]:
    """For each mask of polygons, whether one of its polygons crosses itself."""
    import shapely  # half a second that only this check needs

    flat = [np.reshape(polygon, (-1, 2)) for mask in polygons for polygon in mask]
    if not flat:
        return []
    rings = shapely.linearrings(
        np.concatenate(flat), indices=np.repeat(np.arange(len(flat)), [len(ring) for ring in flat])
    )
    simple = iter(shapely.is_simple(rings) | shapely.is_valid(shapely.polygons(rings)))
    return [not np.all([next(simple) for _ in mask]) for mask in polygons]


def _as_polygon(value: Any) -> Polygon | None:
    """The corners of a polygon that encloses an area; None if it has none or is not a polygon."""
    points = _as_points(value)
    if points is None or len(points) < 6 or len(points) % 2 or not _polygon_area(points):
        return None
    return points


def _as_points(value: Any) -> list[float] | None:
    """Coordinates, also of corners that are pairs: [[x, y], …]."""
    if isinstance(value, list) and value and all(isinstance(p, list) and len(p) == 2 for p in value):
        value = [v for point in value for v in point]
    return as_numbers(value)


def _polygon_area(points: Polygon) -> float:
    x, y = np.array(points[::2]), np.array(points[1::2])
    return float(abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2)


def _read_run_lengths(value: dict[str, Any], size: Size) -> tuple[Mask | None, str]:
    sides, counts = as_numbers(value.get("size")), value.get("counts")
    runs = _decode_counts(counts) if isinstance(counts, str) else _as_runs(counts)
    if sides is None or len(sides) != 2 or runs is None:
        return None, "invalid_mask"
    width, height = size
    if (sides[0], sides[1]) != (height, width):
        return None, "other_rle_size"
    if sum(runs) != width * height:
        return None, "invalid_mask"  # pycocotools would read past the end of its memory
    if not sum(runs[1::2]):
        return None, "degenerate_polygon"
    mask: RunLengths = coco_mask.frPyObjects({"size": [height, width], "counts": runs}, height, width)
    return {"size": [height, width], "counts": mask["counts"].decode()}, ""


def _as_runs(counts: Any) -> list[int] | None:
    numbers = [as_number(count) for count in counts] if isinstance(counts, list) else [None]
    runs = [int(number) for number in numbers if number is not None and number >= 0 and number % 1 == 0]
    return runs if len(runs) == len(numbers) else None


def _decode_counts(text: str) -> list[int] | None:
    """The run lengths that pycocotools has compressed; None if the text is not of its format.

    Each number is a sequence of characters with five bits each, from the lowest, the sign in the last one;
    from the fourth number on, it is the difference from the number before the previous one (rleFrString in
    https://github.com/cocodataset/cocoapi, common/maskApi.c).
    """
    runs: list[int] = []
    number = shift = 0
    for code in (ord(character) - 48 for character in text):
        if not 0 <= code < 64:
            return None
        number |= (code & 0x1F) << shift
        shift += 5
        if code & 0x20:
            continue
        if code & 0x10:
            number -= 1 << shift
        run = number + (runs[-2] if len(runs) > 2 else 0)
        if run < 0:
            return None
        runs.append(run)
        number = shift = 0
    return None if shift else runs


def _compress(pixels: NDArray[np.uint8]) -> RunLengths:
    mask = coco_mask.encode(pixels)
    return {"size": [int(side) for side in mask["size"]], "counts": mask["counts"].decode()}
