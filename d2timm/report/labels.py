"""Names beside the points of a line, none over another."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

__all__ = ["place_labels"]

FONT_SIZES = (11, 10, 9, 8)  # the first with which the most names find a place
DISTANCES = (9, 16, 26, 40, 58, 80, 106, 136, 170)  # pixels from a point
DIRECTIONS = (
    135,
    180,
    90,
    157.5,
    112.5,
    45,
    0,
    315,
    225,
    270,
    22.5,
    67.5,
    337.5,
    292.5,
    247.5,
    202.5,
)  # degrees
FAR = 14  # pixels from which on a line leads from a name to its point
MARKER, MARGIN, STROKE = 8, 3, 1  # pixels to keep free around points, names and lines

Array = NDArray[np.float64]
Place = tuple[float, float, float]  # from a point to the centre of its name: dx, dy, distance


def place_labels(axes: Axes, points: Sequence[tuple[float, float]], names: Mapping[int, str]) -> list[str]:
    """Write names into a panel whose limits are final.

    No name covers another, any point, or the line, or leaves the panel. One that finds no place is left out,
    the lowest first.

    Args:
        axes: the panel.
        points: all that are in it.
        names: of the points that a line joins, in its order.

    Returns:
        The names that were written.
    """
    centres: Array = axes.transData.transform(points)
    panel = np.array(axes.get_window_extent().extents)
    line = centres[list(names)]
    obstacles = np.concatenate([_around(centres, MARKER), *map(_stroke, line[:-1], line[1:])])
    highest_first = sorted(names, key=lambda i: -centres[i][1])
    places: dict[int, Place] = {}
    for candidate in FONT_SIZES:
        sizes = {i: _measure(axes, names[i], candidate) for i in highest_first}
        found = _place(centres, sizes, panel, obstacles)
        if len(found) > len(places):
            places, size = found, candidate
        if len(places) == len(names):
            break
    to_points = 72 / axes.figure.dpi
    leader = {"arrowstyle": "-", "color": "0.6", "lw": 0.8, "shrinkA": 0, "shrinkB": 4}
    for i, (dx, dy, distance) in places.items():
        axes.annotate(
            names[i],
            points[i],
            xytext=(dx * to_points, dy * to_points),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=size,
            parse_math=False,
            arrowprops=leader if distance > FAR else None,
        )
    return [names[i] for i in places]


def _measure(axes: Axes, name: str, size: float) -> Array:
    """(width, height) in pixels."""
    text = axes.text(0, 0, name, fontsize=size, parse_math=False)
    box = text.get_window_extent()
    text.remove()
    return np.array([box.width, box.height])


def _place(centres: Array, sizes: Mapping[int, Array], panel: Array, obstacles: Array) -> dict[int, Place]:
    """Where each name goes, one by one, as near as there is room."""
    names = np.empty((0, 4))
    found: dict[int, Place] = {}
    for i, size in sizes.items():
        moves = ((_move(angle, distance, size), distance) for distance in DISTANCES for angle in DIRECTIONS)
        for move, distance in moves:
            box = np.concatenate(
                [centres[i] + move - size / 2 - MARGIN, centres[i] + move + size / 2 + MARGIN]
            )
            inside = (box[:2] >= panel[:2]).all() and (box[2:] <= panel[2:]).all()
            if not inside or _overlap(box, names) or _overlap(box, obstacles):
                continue
            leader = _stroke(centres[i], centres[i] + move) if distance > FAR else np.empty((0, 4))
            if any(_overlap(part, names) for part in leader):
                continue
            found[i] = (*move, distance)
            names = np.concatenate([names, box[None]])
            obstacles = np.concatenate([obstacles, leader])
            break
    return found


def _move(angle: float, distance: float, size: Array) -> Array:
    """From a point to the centre of a name whose edge is so far away."""
    direction = np.array([math.cos(math.radians(angle)), math.sin(math.radians(angle))])
    return direction * (distance + size / 2)


def _around(centres: Array, radius: float) -> Array:
    """(N, 2) -> (N, 4): left, bottom, right, top."""
    return np.concatenate([centres - radius, centres + radius], axis=1)


def _stroke(start: Array, end: Array) -> Array:
    """A straight line as boxes, a pixel or two apart."""
    steps = np.linspace(0, 1, 2 + int(np.abs(end - start).max() / (2 * STROKE)))[:, None]
    return _around(start + steps * (end - start), STROKE)


def _overlap(box: Array, others: Array) -> bool:
    return bool(((box[:2] < others[:, 2:]) & (others[:, :2] < box[2:])).all(axis=1).any())
