"""What follows from the levels of a neck: their names, anchors and pooler scales.

A neck makes one level of each output of the backbone that it takes, named ``p<log2 stride>`` as in the FPN
paper, and its top block adds coarser ones. Configs name these functions instead of repeating numbers.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

from ..errors import ConfigError
from ..utils.checks import check_outputs

__all__ = [
    "anchor_sizes",
    "anchors_per_cell",
    "coarse_features",
    "finest_stride",
    "fused_top_block",
    "last",
    "last_name",
    "level_names",
    "level_strides",
    "nearest_feature",
    "pooler_scales",
    "pyramid_scales",
    "taken_strides",
]

OCTAVES = 5  # from 32 to 512 pixels: sides of the anchors of the FPN and RetinaNet papers


def coarse_features(remaps: Sequence[str], strides: Sequence[int], finest: int = 1) -> list[str]:
    """Names of a backbone's outputs of stride ``finest`` and more, for a neck that takes no finer ones.

    Args:
        remaps: names of the backbone's outputs.
        strides: of the backbone's outputs.
        finest: stride in pixels; 1: all outputs.

    Raises:
        ConfigError: there is none.
    """
    check_outputs(remaps, strides)
    features = [name for name, stride in zip(remaps, strides, strict=True) if stride >= finest]
    if not features:
        raise ConfigError(f"strides={list(strides)}: the neck needs at least one of >= {finest}")
    return features


def nearest_feature(remaps: Sequence[str], strides: Sequence[int], stride: int = 16) -> list[str]:
    """Name of the output of a backbone whose stride is nearest, for a neck that takes one; finer of equals.

    Args:
        remaps: names of the backbone's outputs, fine to coarse.
        strides: of the backbone's outputs.
        stride: the one that is wanted, in pixels.
    """
    check_outputs(remaps, strides)
    far = [abs(math.log2(given / stride)) for given in strides]
    return [remaps[far.index(min(far))]]


def pyramid_scales(
    features: Sequence[str], remaps: Sequence[str], strides: Sequence[int], finest: int = 1
) -> list[float]:
    """Scale factors of a simple feature pyramid: ViTDet's 4, 2, 1 and 1/2 without levels that are too fine.

    Args:
        features: name of the one output that the pyramid is made of.
        remaps: names of all outputs of the backbone.
        strides: of all outputs of the backbone.
        finest: levels of finer strides are left out, for detectors that do not use them.

    Raises:
        ConfigError: an output that the backbone does not have, or no level that is left.
    """
    taken = taken_strides(features, remaps, strides)[0]
    scales = [scale for scale in (4.0, 2.0, 1.0, 0.5) if taken / scale >= finest]
    if not scales:
        raise ConfigError(
            f"model.backbone.in_features={list(features)}: of stride {taken} no level of >= {finest} is made"
        )
    return scales


def taken_strides(
    features: Sequence[str],
    remaps: Sequence[str],
    strides: Sequence[int],
    finest: int = 1,
    scale_factors: Sequence[float] | None = None,
) -> list[int]:
    """Strides of a backbone's outputs that a neck takes: those of its levels before its top block's.

    Args:
        features: names of the outputs that the neck takes, its ``in_features``.
        remaps: names of all outputs of the backbone.
        strides: of all outputs of the backbone.
        finest: finer ones are left out, for heads that do not use them.
        scale_factors: of a neck that makes all its levels of one output, by resampling it; None: others.

    Raises:
        ConfigError: an output that the backbone does not have, none that is left, or several to be scaled.
    """
    check_outputs(remaps, strides)
    given = dict(zip(remaps, strides, strict=True))
    for name in features:
        if name not in given:
            raise ConfigError(
                f"model.backbone.in_features={list(features)}: the backbone has no {name!r}, it gives "
                f"{', '.join(remaps)}"
            )
    taken = [given[name] for name in features]
    if scale_factors is not None:
        if len(taken) != 1:
            raise ConfigError(
                f"model.backbone.in_features={list(features)}: scale_factors make all levels of one output"
            )
        taken = [int(taken[0] / scale) for scale in scale_factors]
    taken = [stride for stride in taken if stride >= finest]
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


def finest_stride(strides: Sequence[int]) -> int:
    """Stride of a neck's finest level; argument as that of ``level_strides``."""
    return level_strides(strides)[0]


def fused_top_block(top_block: Any = None, num_layers: int | None = None) -> Any:
    """A neck's top block, if the neck fuses its levels with the others; otherwise None.

    Args:
        top_block: the neck's.
        num_layers: how often the neck fuses all levels, as BiFPN does; None: it does not.
    """
    return top_block if num_layers else None


def anchor_sizes(
    strides: Sequence[int], top_block: Any = None, scales: Sequence[float] = (8.0,), finest: int = 4
) -> list[list[float]]:
    """Sides in pixels of the square anchors of each level: ``scales`` times the level's stride.

    A neck of a single level has the anchors of a whole pyramid there, as R-CNNs without FPN have them.

    Args:
        strides: as those of ``level_strides``.
        top_block: as that of ``level_strides``.
        scales: sides of the anchors, in cells of their level.
        finest: stride at which the pyramid begins whose anchors a single level has.
    """
    given = level_strides(strides, top_block)
    if len(given) == 1:
        return [[scale * finest * 2**octave for octave in range(OCTAVES) for scale in scales]]
    return [[scale * stride for scale in scales] for stride in given]


def anchors_per_cell(aspect_ratios: Sequence[Any], sizes: Sequence[Any]) -> int:
    """How many anchors a cell of a level has.

    Args:
        aspect_ratios: of all levels, or a list for each level.
        sizes: sides in pixels, of all levels or a list for each level.
    """
    return math.prod(len(v[0]) if isinstance(v[0], Sequence) else len(v) for v in (aspect_ratios, sizes))


def pooler_scales(strides: Sequence[int]) -> list[float]:
    """Cells a pixel of each level that regions are pooled from."""
    return [1.0 / stride for stride in level_strides(strides)]


def last(dims: Sequence[int]) -> int:
    """Width of what a head's last layer gives, of the widths of its layers."""
    if not dims:
        raise ConfigError("fc_dims=[]: a box head needs at least one fully connected layer")
    return dims[-1]
