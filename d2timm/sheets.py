"""Sheets of small pictures with titles, whose cells can be seen."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

from .files import whole

__all__ = ["Scale", "Tile", "write_sheet"]

WIDTH = 3.2  # inches of a picture
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


def write_sheet(file: Path, rows: Sequence[Sequence[Tile]], scale: Scale | None = None) -> None:
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
    with whole(file) as partial:
        figure.savefig(partial, format="png")
