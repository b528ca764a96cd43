"""The EXIF orientations, for coordinates and pixels: from an image as stored to the image as shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Turn"]

#: EXIF orientation -> whether x and y swap, then whether x and y are mirrored, for the image as shown
_STEPS = {
    1: (False, False, False),
    2: (False, True, False),
    3: (False, True, True),
    4: (False, False, True),
    5: (True, False, False),
    6: (True, True, False),
    7: (True, True, True),
    8: (True, False, True),
}


@dataclass(frozen=True)
class Turn:
    """The rotation and mirroring of one image.

    Attributes:
        orientation: EXIF orientation, 1 (none) to 8.
        shown: (width, height) of the image as shown.
    """

    orientation: int
    shown: tuple[int, int]

    def points(self, coordinates: Sequence[float]) -> list[float]:
        """Turn x0, y0, x1, y1, … from the image as stored to the image as shown."""
        swap, mirror_x, mirror_y = _STEPS[self.orientation]
        xs, ys = coordinates[::2], coordinates[1::2]
        if swap:
            xs, ys = ys, xs
        width, height = self.shown
        turned = [0.0] * len(coordinates)
        turned[::2] = [width - x for x in xs] if mirror_x else list(xs)
        turned[1::2] = [height - y for y in ys] if mirror_y else list(ys)
        return turned

    def box(self, box: Sequence[float]) -> list[float]:
        """Turn (left, top, width, height)."""
        x, y, w, h = box
        x0, y0, x1, y1 = self.points([x, y, x + w, y + h])
        return [min(x0, x1), min(y0, y1), abs(x1 - x0), abs(y1 - y0)]

    def pixels(self, array: NDArray[Any]) -> NDArray[Any]:
        """Turn an array (H, W)."""
        swap, mirror_x, mirror_y = _STEPS[self.orientation]
        turned = array.T if swap else array
        turned = turned[:, ::-1] if mirror_x else turned
        return np.ascontiguousarray(turned[::-1] if mirror_y else turned)

    def keypoints(self, values: Sequence[float]) -> list[float]:
        """Turn x0, y0, visibility0, …; points that are not labelled stay where they are.

        Keypoints of COCO are indices of pixels, whose centres are half a pixel further right and down.
        """
        turned = list(values)
        for i in range(0, len(values), 3):
            if values[i + 2]:
                x, y = self.points([values[i] + 0.5, values[i + 1] + 0.5])
                turned[i : i + 2] = [x - 0.5, y - 0.5]
        return turned
