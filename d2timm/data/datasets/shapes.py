"""The images of the embedded dataset `shapes`: four kinds of shapes, drawn instead of downloaded.

    rng of (seed, split, index) -> overlapping shapes -> image, visible part of each shape

Each class has its own range of hues, like kinds of fruit, which overlaps with the ranges of its neighbours.
Shapes occlude each other, and annotations describe the visible parts, as in COCO. The constants in capitals
determine the content, and through it the name of the folder in the cache.
"""

import math
from dataclasses import dataclass, replace

import cv2
import numpy as np
from einops import rearrange
from numpy.typing import NDArray

from ...errors import ConfigError

__all__ = ["BACKGROUND", "CLASSES", "KEYPOINTS", "Shape", "draw_image"]

VERSION = 3  # increase it when the code below draws different images from the same constants
SEED = 2024
COUNTS = {"train": 400, "val": 80}
SIZE = 160  # pixels, height and width of an image
SUPERSAMPLE = 4  # the resolution of masks relative to the image
FORMS = {  # radii of the corners, at equal angles around the centre
    "circle": (1.0,) * 72,
    "triangle": (1.0,) * 3,
    "square": (1.0,) * 4,
    "star": (1.0, 0.45) * 5,
}
SHAPES_PER_IMAGE = (2, 5)
DIAMETERS = (36.0, 96.0)  # pixels, of the circle through the outer corners
HUE_SPREAD = 18.0  # degrees, standard deviation around the hue of a class; the hues are evenly spaced
MARGIN = 2.0  # pixels between a shape and the edge of the image
MAX_HIDDEN = 0.25  # fraction of a shape's area that all later shapes together may occlude
MAX_POLYGON_ERROR = 0.02  # fraction of the visible area
SPECK = 8.0  # square pixels; a smaller separate part has no polygon
MIN_CONTRAST = 90.0  # distance in RGB, along nearly all of a shape's edge
PIXEL_NOISE = 4.0  # standard deviation, of 255
TRIES = 200  # attempts to place shapes in an image

BACKGROUND = "background"  # the pixel class of everything that is not a shape
KEYPOINTS = ("top", "right", "bottom", "left", "centre")  # extreme points of the unoccluded shape

CLASSES: tuple[str, ...] = tuple(FORMS)

Mask = NDArray[np.uint8]  # (SIZE * SUPERSAMPLE, SIZE * SUPERSAMPLE), 0 or 255
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Shape:
    """The visible part of one shape, as COCO describes it.

    Attributes:
        category: one of `CLASSES`.
        polygons: `(x0, y0, x1, y1, ...)` of each part, in pixels, 0 <= x, y <= SIZE.
        bbox: `(x, y, width, height)` in pixels, around the polygons.
        area: in square pixels.
        keypoints: `(x, y, visibility)` of each of `KEYPOINTS`, for the unoccluded shape: x and y are in
            pixels and 0 at the centre of the first pixel; visibility is 2, or 1 where a later shape occludes
            the point.
    """

    category: str
    polygons: tuple[tuple[float, ...], ...]
    bbox: tuple[float, float, float, float]
    area: float
    keypoints: tuple[tuple[float, float, int], ...] = ()


@dataclass(frozen=True)
class _Layer:
    """A placed shape: its unoccluded mask, its visible part, and a `Shape` that describes this part."""

    whole: Mask
    visible: Mask
    shape: Shape


def draw_image(split: str, index: int) -> tuple[NDArray[np.uint8], list[Shape]]:
    """Draw one image, which is the same in every call and process.

    Args:
        split: a key of `COUNTS`.
        index: number of the image, >= 0; the image does not depend on the size of the split.

    Returns:
        The image, (SIZE, SIZE, 3) RGB, and its shapes from bottom to top.

    Raises:
        ConfigError: the split is unknown.
    """
    if split not in COUNTS:
        allowed = ", ".join(COUNTS)
        raise ConfigError(f"the dataset shapes has no split {split!r}: use one of {allowed}")
    rng = np.random.default_rng((SEED, list(COUNTS).index(split), index))
    layers = _arrange(rng)
    canvas = _background(rng)
    for layer in layers:
        _paint(rng, canvas, layer.whole, layer.shape.category)
    canvas += PIXEL_NOISE * rng.standard_normal(canvas.shape, np.float32)
    shapes = [replace(layer.shape, keypoints=_keypoints(layer)) for layer in layers]
    return np.clip(canvas, 0, 255).astype(np.uint8), shapes


def _arrange(rng: np.random.Generator) -> list[_Layer]:
    """Place random shapes, and keep only those that leave every earlier shape clearly visible."""
    layers: list[_Layer] = []
    wanted = rng.integers(*SHAPES_PER_IMAGE, endpoint=True)
    for _ in range(TRIES):
        if len(layers) == wanted:
            break
        category = CLASSES[rng.integers(len(CLASSES))]
        mask = _random_mask(rng, category)
        below = [left for layer in layers if (left := _cover(layer, mask))]
        if len(below) == len(layers) and (shape := _describe(category, mask)):
            layers = [*below, _Layer(mask, mask, shape)]
    return layers


def _random_mask(rng: np.random.Generator, category: str) -> Mask:
    """The mask of a shape of random size, rotation and position, completely inside the image."""
    radii = np.array(FORMS[category])
    angles = rng.uniform(0, 2 * np.pi) + np.linspace(0, 2 * np.pi, len(radii), endpoint=False)
    # log-uniform: as many shapes between 36 and 59 pixels as between 59 and 96
    radius = np.exp(rng.uniform(*np.log(DIAMETERS))) / 2
    corners = radius * radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)  # (n, 2)
    corners += rng.uniform(MARGIN - corners.min(axis=0), SIZE - MARGIN - corners.max(axis=0))
    mask = np.zeros((SIZE * SUPERSAMPLE,) * 2, np.uint8)
    bits = 8  # fractional bits of cv2's fixed-point numbers
    fixed = np.rint(corners * SUPERSAMPLE * 2**bits).astype(np.int32)
    cv2.fillPoly(mask, [fixed], (255,), shift=bits)
    return mask


def _cover(layer: _Layer, mask: Mask) -> _Layer | None:
    """`layer` below `mask`; None if too little stays visible or polygons cannot describe it."""
    visible = np.asarray(cv2.subtract(layer.visible, mask), np.uint8)
    count = cv2.countNonZero(visible)
    if count == cv2.countNonZero(layer.visible):
        return layer
    if count < (1 - MAX_HIDDEN) * cv2.countNonZero(layer.whole):
        return None
    shape = _describe(layer.shape.category, visible)
    return replace(layer, visible=visible, shape=shape) if shape else None


def _describe(category: str, visible: Mask) -> Shape | None:
    """A mask as COCO describes it; None if polygons, which have no holes, approximate its area badly."""
    # cv2.findContours connects the centres of pixels, half a pixel inside the edges of the mask. In a mask
    # that is dilated by one pixel to the right and downwards, pixel (x, y) represents the corner shared by
    # the former pixels (x - 1, y - 1) and (x, y), so that contours follow the edges.
    x, y, w, h = cv2.boundingRect(visible)
    grown = cv2.dilate(visible[y : y + h + 1, x : x + w + 1], np.ones((2, 2)), anchor=(1, 1))
    mode, method = cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE
    contours, _ = cv2.findContours(grown, mode, method, offset=(x, y))
    outlines = [cv2.approxPolyDP(contour, 0.75, closed=True) for contour in contours]
    outlines = [o for o in outlines if cv2.contourArea(o) >= SPECK * SUPERSAMPLE**2]
    area = cv2.countNonZero(visible)
    if abs(sum(map(cv2.contourArea, outlines)) - area) > MAX_POLYGON_ERROR * area:
        return None
    points = np.concatenate(outlines) / SUPERSAMPLE  # (n, 1, 2)
    (x0, y0), (x1, y1) = points.min(axis=(0, 1)).tolist(), points.max(axis=(0, 1)).tolist()
    flat = [rearrange(outline, "n 1 xy -> (n xy)") / SUPERSAMPLE for outline in outlines]
    polygons = tuple(tuple(polygon.tolist()) for polygon in flat)
    return Shape(category, polygons, (x0, y0, x1 - x0, y1 - y0), area / SUPERSAMPLE**2)


def _keypoints(layer: _Layer) -> tuple[tuple[float, float, int], ...]:
    """The KEYPOINTS of an unoccluded shape; a later shape may cover a point."""
    ys, xs = np.nonzero(layer.whole)
    points = [
        (xs[edge].mean(), ys[edge].mean())  # the middle of a flat edge
        for edge in (ys == ys.min(), xs == xs.max(), ys == ys.max(), xs == xs.min())
    ]
    points.append((xs.mean(), ys.mean()))
    keypoints = []
    for x, y in points:
        seen = layer.visible[round(y), round(x)] > 0 or not layer.whole[round(y), round(x)]
        x, y = ((value + 0.5) / SUPERSAMPLE - 0.5 for value in (x, y))
        keypoints.append((round(x, 3), round(y, 3), 2 if seen else 1))
    return tuple(keypoints)


def _background(rng: np.random.Generator) -> Floats:
    """(SIZE, SIZE, 3): one colour with a gradient, soft blotches, stripes and grain of random strength."""
    colour, gradient, stripes = rng.standard_normal((3, 3), np.float32)
    strength = max(0.0, rng.normal())  # no stripes in half of the images
    waves = strength * np.sin(rng.uniform(10, 50) * _ramp(rng, SIZE, SIZE))
    canvas = rng.uniform(60, 195) + 30 * colour + 8 * stripes * waves
    canvas += 25 * gradient * _ramp(rng, SIZE, SIZE)
    canvas += rng.uniform(5, 20) * _blotches(rng, 5, SIZE, SIZE, 3)
    canvas += rng.uniform(0, 6) * rng.standard_normal((SIZE, SIZE, 1), np.float32)
    return np.asarray(canvas, np.float32)


def _paint(rng: np.random.Generator, canvas: Floats, mask: Mask, category: str) -> None:
    """Paint a shape over the image, in one colour of its class with slight shading and blotches."""
    coverage = cv2.resize(mask, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    x, y, w, h = cv2.boundingRect(coverage)
    alpha = coverage[y : y + h, x : x + w, None] / np.float32(255)
    below = canvas[y : y + h, x : x + w]
    edge = below[((alpha > 0) & (alpha < 1))[..., 0]]  # (n, 3)
    colours = _colours(rng, category, 12)
    contrast = np.quantile(np.linalg.norm(colours[:, None] - edge, axis=2), 0.03, axis=1)  # (12,)
    # the first colour with sufficient contrast, or else the colour with the highest contrast
    colour = colours[np.argmax(np.minimum(contrast, MIN_CONTRAST))]
    shade = rng.uniform(0, 25) * _ramp(rng, h, w) + rng.uniform(0, 8) * _blotches(rng, 6, h, w, 1)
    below += alpha * (colour + shade - below)


def _colours(rng: np.random.Generator, category: str, count: int) -> Floats:
    """(count, 3) RGB, 0 to 255: hues around the hue of the class, at random saturation and brightness."""
    hue = 360 * CLASSES.index(category) / len(CLASSES) + rng.normal(0, HUE_SPREAD, count)
    hsv = np.stack([hue % 360, rng.uniform(0.45, 1, count), rng.uniform(0.4, 1, count)], axis=1)
    rgb = cv2.cvtColor(hsv.astype(np.float32)[None], cv2.COLOR_HSV2RGB)
    return np.asarray(255 * rgb[0], np.float32)


def _ramp(rng: np.random.Generator, h: int, w: int) -> Floats:
    """(h, w, 1): a linear ramp from about -1 to 1 in a random direction."""
    angle = rng.uniform(0, 2 * math.pi)
    x = np.linspace(-math.cos(angle), math.cos(angle), w, dtype=np.float32)
    y = np.linspace(-math.sin(angle), math.sin(angle), h, dtype=np.float32)
    return np.add.outer(y, x)[..., None]


def _blotches(rng: np.random.Generator, cells: int, h: int, w: int, channels: int) -> Floats:
    """(h, w, channels): smooth noise with a standard deviation near 1 and `cells` blotches per side."""
    coarse = rng.standard_normal((cells, cells, channels), np.float32)
    smooth = np.asarray(cv2.resize(coarse, (w, h), interpolation=cv2.INTER_CUBIC), np.float32)
    return smooth.reshape(h, w, channels)  # cv2 drops the axis of a single channel
