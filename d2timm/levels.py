"""What follows from the levels of a neck: their names, anchors and pooler scales.

A neck makes one level of each stride of its backbone, named ``p<log2 stride>`` as in the FPN paper, and
its top block adds coarser ones. Configs name these functions instead of repeating numbers.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

from .errors import ConfigError

__all__ = ["anchor_sizes", "anchors_per_cell", "last", "level_names", "level_strides", "pooler_scales"]


def level_strides(strides: Sequence[int], top_block: Any = None) -> list[int]:
    """Strides in pixels of a neck's levels, fine to coarse.

    Args:
        strides: of the backbone's outputs.
        top_block: the neck's block that makes ``num_levels`` more, each of double the stride; or None.

    Raises:
        ConfigError: strides that no pyramid has.
    """
    if any(stride < 1 or stride & (stride - 1) for stride in strides):
        raise ConfigError(
            f"strides={list(strides)}: the levels of a neck are powers of two, such as 4, 8, 16, 32"
        )
    if any(coarse != 2 * fine for fine, coarse in itertools.pairwise(strides)):
        raise ConfigError(
            f"strides={list(strides)}: each level of a neck has double the stride of the one before"
        )
    more = getattr(top_block, "num_levels", 0)
    return [*strides, *(strides[-1] * 2**k for k in range(1, more + 1))]


def level_names(strides: Sequence[int], top_block: Any = None) -> list[str]:
    """Names of a neck's levels, fine to coarse: ``p2`` has stride 4."""
    return [f"p{int(math.log2(stride))}" for stride in level_strides(strides, top_block)]


def anchor_sizes(
    strides: Sequence[int], top_block: Any = None, scales: Sequence[float] = (8.0,)
) -> list[list[float]]:
    """Sides in pixels of the square anchors of each level: ``scales`` times the level's stride."""
    return [[scale * stride for scale in scales] for stride in level_strides(strides, top_block)]


def anchors_per_cell(aspect_ratios: Sequence[float], scales: Sequence[float] = (8.0,)) -> int:
    """How many anchors a cell of a level has."""
    return len(aspect_ratios) * len(scales)


def pooler_scales(strides: Sequence[int]) -> list[float]:
    """Cells a pixel of each level that regions are pooled from."""
    return [1.0 / stride for stride in level_strides(strides)]


def last(dims: Sequence[int]) -> int:
    """Width of what a head's last layer gives, of the widths of its layers."""
    if not dims:
        raise ConfigError("fc_dims=[]: a box head needs at least one fully connected layer")
    return dims[-1]
