"""Masks as annotation tools write them, read into what pycocotools and detectron2 use.

Polygons become lists of at least three corners that cover a pixel, run lengths are compressed by pycocotools.
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

FAR = 10  # sides of the image; pycocotools would need memory for each pixel on the way to a corner beyond it


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
    single = not any(isinstance(part, list) for part in value) or (
        len(value) > 2 and all(map(_is_pair, value))
    )
    polygons = [_as_points(part, size) for part in ([value] if single else value)]
    usable = [points for points in polygons if points and _covers_a_pixel(points, size)]
    if not usable:
        return None, "invalid_mask" if None in polygons else "degenerate_polygon"
    if len(usable) < len(polygons):
        return usable, "part_of_mask"
    return usable, "flat_polygon" if single else ""


def area_of(mask: Mask) -> float:
    """The number of pixels of a mask; for polygons the enclosed area, in which overlaps count twice.

    It is 0 for a polygon that crosses itself and goes around as much one way as the other way.
    """
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


def _is_pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2


def _as_points(value: Any, size: Size) -> Polygon | None:
    """The corners of a polygon, which may be pairs: [[x, y], …]; None if they are no coordinates."""
    if isinstance(value, list) and value and all(map(_is_pair, value)):
        value = [number for pair in value for number in pair]
    points = as_numbers(value)
    if points is None or len(points) % 2 or (points and max(max(points), -min(points)) > FAR * max(size)):
        return None
    return points


def _covers_a_pixel(points: Polygon, size: Size) -> bool:
    """Whether a polygon is a mask of at least one pixel of the image."""
    if len(points) < 6:
        return False
    (x0, x1), (y0, y1) = ((min(points[axis::2]), max(points[axis::2])) for axis in (0, 1))
    width, height = size
    inside = min(x0, y0) >= 0 and x1 <= width and y1 <= height
    if inside and _polygon_area(points) > max(x1 - x0, y1 - y0):  # it is thicker than a pixel on average
        return True
    return bool(coco_mask.area(coco_mask.frPyObjects([points], height, width))[0])


def _polygon_area(points: Polygon) -> float:
    twice, x0, y0 = 0.0, points[-2], points[-1]
    for x, y in zip(points[::2], points[1::2], strict=True):  # most polygons are too short for NumPy to pay
        twice += x0 * y - x * y0
        x0, y0 = x, y
    return abs(twice) / 2


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
