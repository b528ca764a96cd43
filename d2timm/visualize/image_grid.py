"""Sheets of small pictures with titles, whose cells can be seen."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ..utils.files import atomic_write
from ..utils.images import Picture

__all__ = ["Scale", "Tile", "stack_pictures", "write_grid"]

WIDTH = 3.2  # inches of a picture
GAP = 8  # pixels between stacked pictures
DOTS = 120  # an inch
TITLE = 0.35  # inches


class Tile(NamedTuple):
    """A picture with its title: (h, w, 3) RGB, or numbers (h, w) to be shown by a ``Scale``."""

    title: str
    pixels: NDArray[np.generic]


class Scale(NamedTuple):
    """How numbers become colours, told beside the sheet."""

    label: str
    colors: str  # a colour map of matplotlib
    norm: Normalize


def write_grid(file: Path, rows: Sequence[Sequence[Tile]], scale: Scale | None = None) -> None:
    """Write rows of pictures as a PNG; each cell of a picture is a square of one colour.

    Args:
        file: the PNG.
        rows: each as long as it may be.
        scale: of pictures that are numbers.
    """
    columns = max(map(len, rows))
    height, width = rows[0][0].pixels.shape[:2]
    side = min(max(WIDTH * height / width, WIDTH / 3), WIDTH * 3)
    size = (columns * WIDTH + (1 if scale else 0), len(rows) * (side + TITLE))
    figure = Figure(figsize=size, dpi=DOTS, layout="constrained")
    axes = figure.subplots(len(rows), columns, squeeze=False)
    shown = None
    for row, places in zip(rows, axes, strict=True):
        for place in places:
            place.axis("off")
        for tile, place in zip(row, places, strict=False):
            place.set_title(tile.title, fontsize=9)
            if tile.pixels.ndim == 2 and scale:
                options = {"cmap": scale.colors, "norm": scale.norm}
                shown = place.imshow(tile.pixels, interpolation="nearest", **options)
            else:
                place.imshow(tile.pixels, interpolation="nearest")
    if shown is not None and scale:
        ends = [scale.norm.vmin, 1, scale.norm.vmax]
        bar = figure.colorbar(shown, ax=axes, label=scale.label, ticks=ends, fraction=0.02, aspect=40)
        bar.ax.yaxis.set_major_formatter("{x:.2f}")
        bar.ax.minorticks_off()
    with atomic_write(file) as partial:
        figure.savefig(partial, format="png")


def stack_pictures(pictures: Sequence[Picture], columns: int) -> Picture:
    """Pictures of any sizes as one, pixel by pixel: rows on white, each as high as its highest picture.

    Args:
        pictures: at least one.
        columns: pictures in a row; all columns are as wide as the widest picture.
    """
    columns = min(columns, len(pictures))
    rows = [pictures[start : start + columns] for start in range(0, len(pictures), columns)]
    width = GAP + max(picture.shape[1] for picture in pictures)
    heights = [GAP + max(picture.shape[0] for picture in row) for row in rows]
    grid = np.full((sum(heights), columns * width, 3), 255, np.uint8)
    for row, height, bottom in zip(rows, heights, np.cumsum(heights), strict=True):
        for column, picture in enumerate(row):
            top, left = bottom - height, column * width
            grid[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    return grid
