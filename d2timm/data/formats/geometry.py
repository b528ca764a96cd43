"""Shapes as annotation tools draw them, read as boxes and masks of COCO."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask

from ...utils.pillow import BROKEN
from ..checks.values import LARGEST, as_number
from .building import Annotation, to_annotation

__all__ = [
    "Shape",
    "ShapeError",
    "Size",
    "bitmap",
    "corners",
    "decode_png",
    "ellipse",
    "label_of",
    "number",
    "oriented_box",
    "polygon",
    "rectangle",
    "to_object",
    "turned_box",
    "union",
]

LARGEST_SIDE = 2**20  # pixels of a mask's side
ELLIPSE_CORNERS = 32

Size: TypeAlias = tuple[int, int]  # (width, height)
Point: TypeAlias = tuple[float, float]


class ShapeError(Exception):
    """A shape that is no object; its text is the reason.

    Attributes:
        kind: the kind of finding.
    """

    def __init__(self, reason: str, kind: str = "invalid_annotation") -> None:
        super().__init__(reason)
        self.kind = kind


@dataclass(frozen=True)
class Shape:
    """An object.

    Attributes:
        box: (left, top, width, height) in pixels.
        mask: polygons or uncompressed run lengths as in COCO; None: the object is only a box.
        finding: the kind of finding if the shape is not used as it is drawn, else "".
        reason: what was drawn, for the finding.
    """

    box: tuple[float, float, float, float]
    mask: list[list[float]] | dict[str, Any] | None = None
    finding: str = ""
    reason: str = ""


def number(value: Any, least: float = -LARGEST) -> float:
    """A coordinate or length in pixels, degrees or percent, which may be written as text.

    Raises:
        ShapeError: it is another value, or out of range.
    """
    result = as_number(value)
    if result is None or not least <= result <= LARGEST:
        raise ShapeError(f"{value!r:.40} is not a coordinate")
    return result


def corners(value: Any) -> list[Point]:
    """Corners from a list of pairs [x, y].

    Raises:
        ShapeError: the value is another one.
    """
    if not isinstance(value, (list, tuple)):
        raise ShapeError(f"{value!r:.40} is not a list of points")
    for point in value:
        if not isinstance(point, (list, tuple)) or len(point) != 2:
            raise ShapeError(f"{point!r:.40} is not a point [x, y]")
    return [(number(x), number(y)) for x, y in value]


def label_of(value: Any) -> str:
    """The class of a shape, which may be a number.

    Raises:
        ShapeError: there is none.
    """
    text = "" if isinstance(value, (bool, list, dict)) or value is None else str(value).strip()
    if not text:
        raise ShapeError("it has no class")
    return text


def rectangle(points: Iterable[Point]) -> Shape:
    """The box around points, such as two opposite corners in any order."""
    xs, ys = zip(*points, strict=True)
    return Shape((min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)))


def polygon(
    points: Sequence[Point], holes: Iterable[Sequence[Point]] = (), size: Size | None = None
) -> Shape:
    """A polygon, which may have holes.

    Args:
        points: its corners.
        holes: the corners of its holes.
        size: (width, height) of the image, which is needed if there are holes.

    Raises:
        ShapeError: it has fewer than three corners.
    """
    if len(points) < 3:
        raise ShapeError(f"a polygon of {len(points)} corners")
    shape = replace(rectangle(points), mask=[_flat(points)])
    cut = [_flat(hole) for hole in holes if len(hole) >= 3]
    if not cut:
        return shape
    if size is None:
        raise ShapeError("a polygon with holes, and the size of the image is not known")
    pixels = np.setdiff1d(_pixels([_flat(points)], size), _pixels(cut, size))
    return replace(shape, mask=_run_lengths(pixels, size))


def ellipse(x: float, y: float, radii: Point, degrees: float = 0) -> Shape:
    """An ellipse around (x, y), read as a polygon.

    Raises:
        ShapeError: a radius is not positive.
    """
    if min(radii) <= 0:
        raise ShapeError(f"an ellipse with the radii {radii[0]:g} and {radii[1]:g}")
    angles = 2 * np.pi * np.arange(ELLIPSE_CORNERS) / ELLIPSE_CORNERS
    drawn = np.stack([radii[0] * np.cos(angles), radii[1] * np.sin(angles)], axis=1)
    shape = polygon(_turned(drawn, (x, y), degrees))
    return replace(shape, finding="converted_shape", reason="circle" if radii[0] == radii[1] else "ellipse")


def oriented_box(points: Sequence[Point]) -> Shape:
    """A box of four corners that need not be upright, read as a polygon."""
    return replace(polygon(points), finding="oriented_box")


def turned_box(left: float, top: float, sides: Point, degrees: float, pivot: Point) -> Shape:
    """A box that is turned clockwise around a point; only upright boxes stay boxes."""
    width, height = sides
    right, bottom = left + width, top + height
    if degrees % 360 == 0:
        return rectangle([(left, top), (right, bottom)])
    drawn = np.array([(left, top), (right, top), (right, bottom), (left, bottom)]) - pivot
    return oriented_box(_turned(drawn, pivot, degrees))


def bitmap(pixels: NDArray[np.bool_], left: int, top: int, size: Size | None) -> Shape:
    """A mask of pixels; those outside the image are cut off.

    Args:
        pixels: array (H, W) of the part of the image that starts at (left, top).
        left: in pixels of the image.
        top: in pixels of the image.
        size: (width, height) of the image.

    Raises:
        ShapeError: no pixel of the image is set, or the size is not known.
    """
    if size is None or not 0 < max(size) <= LARGEST_SIDE:
        raise ShapeError("a mask of pixels, and the size of the image is not known")
    ys, xs = (axis + first for axis, first in zip(np.nonzero(pixels), (top, left), strict=True))
    inside = (xs >= 0) & (xs < size[0]) & (ys >= 0) & (ys < size[1])
    xs, ys = xs[inside], ys[inside]
    if not len(xs):
        raise ShapeError("a mask without pixels in the image")
    x, y = int(xs.min()), int(ys.min())
    box = (x, y, int(xs.max()) - x + 1, int(ys.max()) - y + 1)
    return Shape(box, _run_lengths(np.sort(xs * size[1] + ys), size))


def decode_png(content: bytes) -> NDArray[np.bool_]:
    """The pixels of a mask that is stored as an image: those that are not transparent, or else not black.

    Raises:
        ShapeError: it is not an image.
    """
    try:
        with Image.open(io.BytesIO(content)) as image:
            if "transparency" in image.info or "A" in image.getbands():
                return np.asarray(image.convert("RGBA"))[..., 3] > 0
            array = np.asarray(image)
    except BROKEN as error:
        raise ShapeError(f"its mask is not an image: {error}") from None
    return np.asarray(np.any(np.atleast_3d(array) > 0, axis=-1))


def union(shapes: Sequence[Shape], size: Size | None) -> Shape:
    """One object of several parts.

    Raises:
        ShapeError: some parts are masks of pixels, and the size of the image is not known.
    """
    if len(shapes) == 1:
        return shapes[0]
    boxes = [((x, y), (x + w, y + h)) for x, y, w, h in (shape.box for shape in shapes)]
    box = rectangle(point for ends in boxes for point in ends)
    if all(shape.mask is None for shape in shapes):
        return box
    masks = [_box_polygon(shape.box) if shape.mask is None else shape.mask for shape in shapes]
    if all(isinstance(mask, list) for mask in masks):
        return replace(box, mask=[part for mask in masks if isinstance(mask, list) for part in mask])
    if size is None:
        raise ShapeError("a mask of pixels, and the size of the image is not known")
    pixels = [_pixels(mask, size) if isinstance(mask, list) else _decoded(mask) for mask in masks]
    return replace(box, mask=_run_lengths(np.unique(np.concatenate(pixels)), size))


def to_object(category: str, shape: Shape, source: str) -> Annotation:
    """The annotation of a shape; ``source`` is its place for findings."""
    mask = {} if shape.mask is None else {"segmentation": shape.mask}
    return to_annotation(category, shape.box, source=source, **mask)


def _flat(points: Iterable[Point]) -> list[float]:
    return [coordinate for point in points for coordinate in point]


def _turned(points: NDArray[np.float64], pivot: Point, degrees: float) -> list[Point]:
    """Points (N, 2) relative to a pivot, turned clockwise around it."""
    sin, cos = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
    turned = points @ np.array([[cos, sin], [-sin, cos]]) + pivot
    return [(float(x), float(y)) for x, y in turned]


def _box_polygon(box: Sequence[float]) -> list[list[float]]:
    x, y, w, h = box
    return [[x, y, x + w, y, x + w, y + h, x, y + h]]


def _pixels(polygons: Sequence[Sequence[float]], size: Size) -> NDArray[np.int64]:
    """Sorted indices, column by column, of the image's pixels that polygons cover."""
    if not 0 < max(size) <= LARGEST_SIDE:
        raise ShapeError(f"an image of {size[0]}x{size[1]} pixels")
    found = [np.empty(0, np.int64)]
    for flat in polygons:
        points = np.reshape(flat, (-1, 2))
        # only the part of the image around the polygon; corners far outside would need much memory
        first = np.clip(np.floor(points.min(axis=0)), 0, size).astype(int)
        width, height = np.clip(np.ceil(points.max(axis=0)) + 1, 0, size).astype(int) - first
        if width > 0 and height > 0:
            near = np.clip(points - first, (-width, -height), (2 * width, 2 * height))
            runs = coco_mask.frPyObjects([near.ravel().tolist()], int(height), int(width))
            ys, xs = np.nonzero(coco_mask.decode(runs)[..., 0])
            found.append((xs + first[0]) * size[1] + ys + first[1])
    return np.unique(np.concatenate(found))


def _run_lengths(pixels: NDArray[np.int64], size: Size) -> dict[str, Any]:
    """Uncompressed run lengths of sorted indices, column by column."""
    total = size[0] * size[1]
    starts = np.flatnonzero(np.diff(pixels, prepend=-2) > 1)
    ends = np.append(starts[1:], len(pixels))[: len(starts)]
    edges = np.stack([pixels[starts], pixels[ends - 1] + 1], axis=1).ravel()
    counts = np.diff(edges, prepend=0, append=total)
    return {"size": [size[1], size[0]], "counts": counts.tolist()}


def _decoded(mask: dict[str, Any]) -> NDArray[np.int64]:
    """Sorted indices of the pixels of uncompressed run lengths."""
    ends = np.cumsum(mask["counts"])
    runs = [np.arange(a, b) for a, b in zip(ends[:-1:2], ends[1::2], strict=False)]
    return np.concatenate([np.empty(0, np.int64), *runs])
