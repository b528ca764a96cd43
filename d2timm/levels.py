"""What follows from the levels of a neck: their names, anchors and pooler scales.

A neck makes one level of each output of the backbone that it takes, named ``p<log2 stride>`` as in the FPN
paper, and its top block adds coarser ones. Configs name these functions instead of repeating numbers.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from .errors import ConfigError

__all__ = [
    "TOP_BLOCKS",
    "TopBlock",
    "anchor_sizes",
    "anchors_per_cell",
    "coarse_features",
    "last",
    "last_name",
    "level_names",
    "level_strides",
    "pooler_scales",
    "taken_strides",
]


class TopBlock(NamedTuple):
    """What a neck's top block says of itself, for whoever does not make one."""

    num_levels: int  # that it adds
    in_feature: str  # that it makes them of, unless told


#: Of detectron2's classes, which take seconds to import
TOP_BLOCKS = {"LastLevelMaxPool": TopBlock(1, "p5"), "LastLevelP6P7": TopBlock(2, "res5")}


def coarse_features(remaps: Sequence[str], strides: Sequence[int], finest: int = 8) -> list[str]:
    """Names of a backbone's outputs of stride ``finest`` and more, for a neck that takes no finer ones.

    Args:
        remaps: names of the backbone's outputs.
        strides: of the backbone's outputs.
        finest: stride in pixels.

    Raises:
        ConfigError: there is none.
    """
    features = [name for name, stride in zip(remaps, strides, strict=True) if stride >= finest]
    if not features:
        raise ConfigError(f"strides={list(strides)}: the neck needs at least one of >= {finest}")
    return features


def taken_strides(
    features: Sequence[str], remaps: Sequence[str], strides: Sequence[int], finest: int = 1
) -> list[int]:
    """Strides of a backbone's outputs that a neck takes.

    Args:
        features: names of the outputs that the neck takes, its ``in_features``.
        remaps: names of all outputs of the backbone.
        strides: of all outputs of the backbone.
        finest: finer ones are left out, for heads that do not use them.

    Raises:
        ConfigError: an output that the backbone does not have, or none that is left.
    """
    given = dict(zip(remaps, strides, strict=True))
    for name in features:
        if name not in given:
            raise ConfigError(
                f"model.backbone.in_features={list(features)}: the backbone has no {name!r}, it gives "
                f"{', '.join(remaps)}"
            )
    taken = [given[name] for name in features if given[name] >= finest]
    if not taken:
        raise ConfigError(
            f"model.backbone.in_features={list(features)}: at least one of stride >= {finest} is needed"
        )
    return taken


def level_strides(strides: Sequence[int], top_block: Any = None) -> list[int]:
    """Strides in pixels of a neck's levels, fine to coarse.

    Args:
        strides: of the backbone's outputs that the neck takes.
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


def last_name(strides: Sequence[int]) -> str:
    """Name of a neck's last level before those of its top block."""
    return level_names(strides)[-1]


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
