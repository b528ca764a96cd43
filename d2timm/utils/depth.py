"""Images of more than 8 bits per channel: one rule that scales them to 8 bits."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .once import Once

__all__ = ["to_bytes"]

logger = logging.getLogger(__name__)

ROWS = 1024  # scaled at a time, so that a large image takes little further memory
#: Usual ranges of values, from the narrowest; those of float images begin with the first
RANGES = ((0.0, 1.0), (0.0, 255.0), (0.0, 65535.0))
_LOGGED: dict[object, Once] = {key: Once() for key in ("format", *RANGES, "own")}


def to_bytes(values: NDArray[Any], white: float | None = None, name: str = "an image") -> NDArray[np.uint8]:
    """Scale an image of any number type to bytes.

    If the file's format says which value is white, as it does for unsigned integers of 16 bits, black is 0
    and the scale is linear: 65535 becomes 255. For other integers and for floats, black and white follow from
    the image's own values: they are the ends of the first of these ranges that contains all of them,

    - 0 to 1, for floats;
    - 0 to 255, which leaves the values as they are but for rounding;
    - 0 to 65535;
    - from the least to the greatest value of the image.

    The first use of each range is logged. NaN becomes 0, and infinite values become 0 or 255.

    Args:
        values: (H, W) or (H, W, C).
        white: the value that becomes 255, if the format defines it.
        name: of the image, for the log.

    Returns:
        Values of 0 to 255 in the same shape.
    """
    low, high = (0.0, white) if white is not None else _limits(values)
    _log(values.dtype, (low, high), white is not None, name)
    extent = high - low or 1.0
    scaled = np.empty(values.shape, np.uint8)
    for top in range(0, len(values), ROWS):
        rows = np.clip(values[top : top + ROWS].astype(np.float64), low, high)
        scaled[top : top + ROWS] = np.rint((np.nan_to_num(rows, nan=low) - low) * 255 / extent)
    return scaled


def _limits(values: NDArray[Any]) -> tuple[float, float]:
    """The values that become 0 and 255, found from the image."""
    is_float = np.issubdtype(values.dtype, np.floating)
    finite = values[np.isfinite(values)] if is_float else values
    if not finite.size:
        return RANGES[0]
    low, high = float(finite.min()), float(finite.max())
    usual = RANGES if is_float else RANGES[1:]
    return next((limits for limits in usual if low >= limits[0] and high <= limits[1]), (low, high))


def _log(dtype: np.dtype[Any], limits: tuple[float, float], by_format: bool, name: str) -> None:
    key = "format" if by_format else limits if limits in RANGES else "own"
    if _LOGGED[key]():
        logger.warning(
            "%s: its %s values are scaled to 8 bits, so that %g to %g become 0 to 255; further images like "
            "it are not logged",
            *(name, dtype.name, *limits),
        )
