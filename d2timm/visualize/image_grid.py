"""Arrange pictures in a grid: small ones with titles, enlarged, or stacked pixel by pixel."""

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

__all__ = ["GAP", "Scale", "Tile", "stack_pictures", "write_grid"]

WIDTH = 3.2  # of a tile, in inches
TITLE = 0.35  # height of a title, in inches
DPI = 120
GAP = 8  # pixels between stacked pictures


class Tile(NamedTuple):
    """A picture with a title: (h, w, 3) RGB, or numbers (h, w), which a ``Scale`` maps to colours."""

    title: str
    pixels: NDArray[np.generic]


class Scale(NamedTuple):
    """Maps numbers to colours; drawn next to the grid."""

    label: str
    colors: str  # name of a matplotlib colour map
    norm: Normalize


def write_grid(file: Path, rows: Sequence[Sequence[Tile]], scale: Scale | None = None) -> None:
    """Write rows of tiles as a PNG. Pictures are enlarged without smoothing, so that cells stay visible.

    Args:
        file: the PNG to write.
        rows: of any lengths; the first tile sets the proportions of all.
        scale: for tiles that are numbers.
    """
    columns = max(map(len, rows))
    height, width = rows[0][0].pixels.shape[:2]
    side = min(max(WIDTH * height / width, WIDTH / 3), WIDTH * 3)
    size = (columns * WIDTH + (1 if scale else 0), len(rows) * (side + TITLE))
    figure = Figure(figsize=size, dpi=DPI, layout="constrained")
    axes = figure.subplots(len(rows), columns, squeeze=False)
    numbers = None
    for row, row_axes in zip(rows, axes, strict=True):
        for ax in row_axes:
            ax.axis("off")
        for tile, ax in zip(row, row_axes, strict=False):
            ax.set_title(tile.title, fontsize=9)
            if tile.pixels.ndim == 2 and scale:
                numbers = ax.imshow(tile.pixels, interpolation="nearest", cmap=scale.colors, norm=scale.norm)
            else:
                ax.imshow(tile.pixels, interpolation="nearest")
    if numbers is not None and scale:
        ticks = [scale.norm.vmin, 1, scale.norm.vmax]
        bar = figure.colorbar(numbers, ax=axes, label=scale.label, ticks=ticks, fraction=0.02, aspect=40)
        bar.ax.yaxis.set_major_formatter("{x:.2f}")
        bar.ax.minorticks_off()
    with atomic_write(file) as partial:
        figure.savefig(partial, format="png")


def stack_pictures(pictures: Sequence[Picture], columns: int) -> Picture:
    """Combine pictures of any sizes in one picture with a white background, without resizing them.

    A row is as high as its highest picture, and all columns are as wide as the widest picture; ``GAP``
    pixels follow to the right of each column and below each row.

    Args:
        pictures: at least one.
        columns: number of pictures in a row.
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
