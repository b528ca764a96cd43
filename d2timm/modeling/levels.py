"""Values that follow from the levels of a neck: names, strides, anchor sizes and pooler scales.

A neck makes one level from each backbone output that it takes, named ``p<log2 stride>`` as in the FPN paper,
and its top block adds coarser levels. Configs call these functions instead of repeating numbers.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

from ..errors import ConfigError
from ..utils.checks import check_outputs
from ..utils.targets import config_target

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

OCTAVES = 5  # anchors of 32 to 512 pixels, as in the FPN and RetinaNet papers


@config_target
def coarse_features(remaps: Sequence[str], strides: Sequence[int], finest: int = 1) -> list[str]:
    """Names of the backbone outputs with strides >= ``finest``.

    Args:
        remaps: names of the backbone outputs.
        strides: strides of the backbone outputs, in pixels.
        finest: smallest stride in pixels; 1 for all outputs.

    Raises:
        ConfigError: there is no such output.
    """
    check_outputs(remaps, strides)
    features = [name for name, stride in zip(remaps, strides, strict=True) if stride >= finest]
    if not features:
        raise ConfigError(f"strides={list(strides)}: the neck needs at least one stride >= {finest}")
    return features


@config_target
def nearest_feature(remaps: Sequence[str], strides: Sequence[int], stride: int = 16) -> list[str]:
    """Name of the backbone output with the stride nearest to ``stride``, as a list of one.

    Args:
        remaps: names of the backbone outputs, fine to coarse.
        strides: strides of the backbone outputs, in pixels.
        stride: the desired stride, in pixels; of two equally near outputs the first is taken.
    """
    check_outputs(remaps, strides)
    distances = [abs(math.log2(other / stride)) for other in strides]
    return [remaps[distances.index(min(distances))]]


@config_target
def pyramid_scales(
    features: Sequence[str], remaps: Sequence[str], strides: Sequence[int], finest: int = 1
) -> list[float]:
    """Scale factors of a simple feature pyramid: ViTDet's 4, 2, 1 and 1/2, without levels that are too fine.

    Args:
        features: name of the backbone output that the pyramid is made from, a list of one.
        remaps: names of all backbone outputs.
        strides: strides of all backbone outputs, in pixels.
        finest: smallest stride of a level, in pixels; detectors that use no finer levels set it.

    Raises:
        ConfigError: the backbone has no such output, or no level remains.
    """
    taken = taken_strides(features, remaps, strides)[0]
    scales = [scale for scale in (4.0, 2.0, 1.0, 0.5) if taken / scale >= finest]
    if not scales:
        raise ConfigError(
            f"model.backbone.in_features={list(features)}: stride {taken} makes no level of stride >= "
            f"{finest}; take a coarser output"
        )
    return scales


@config_target
def taken_strides(
    features: Sequence[str],
    remaps: Sequence[str],
    strides: Sequence[int],
    finest: int = 1,
    scale_factors: Sequence[float] | None = None,
) -> list[int]:
    """Strides of a neck's levels without those that its top block adds.

    Args:
        features: names of the backbone outputs that the neck takes, its ``in_features``.
        remaps: names of all backbone outputs.
        strides: strides of all backbone outputs, in pixels.
        finest: smallest stride of a level, in pixels; heads that use no finer levels set it.
        scale_factors: of a neck that resamples one output to all its levels; None for other necks.

    Raises:
        ConfigError: the backbone has no such output, no level remains, or several outputs have scale factors.
    """
    check_outputs(remaps, strides)
    by_name = dict(zip(remaps, strides, strict=True))
    for name in features:
        if name not in by_name:
            raise ConfigError(
                f"model.backbone.in_features={list(features)}: the backbone has no output {name!r}, it has "
                f"{', '.join(remaps)}"
            )
    taken = [by_name[name] for name in features]
    if scale_factors is not None:
        if len(taken) != 1:
            raise ConfigError(
                f"model.backbone.in_features={list(features)}: a neck with scale_factors takes one output"
            )
        taken = [int(taken[0] / scale) for scale in scale_factors]
    taken = [stride for stride in taken if stride >= finest]
    if not taken:
        raise ConfigError(
            f"model.backbone.in_features={list(features)}: the heads need an output of stride >= {finest}"
        )
    return taken


@config_target
def level_strides(strides: Sequence[int], top_block: Any = None) -> list[int]:
    """Strides of a neck's levels, fine to coarse, in pixels.

    Args:
        strides: strides of the levels that the top block does not add.
        top_block: block that adds ``num_levels`` levels, each of double the stride; or None.

    Raises:
        ConfigError: the strides are not successive powers of two.
    """
    if any(stride < 1 or stride & (stride - 1) for stride in strides):
        raise ConfigError(
            f"strides={list(strides)}: a neck needs strides that are powers of two, such as 4, 8, 16, 32"
        )
    if any(coarse != 2 * fine for fine, coarse in itertools.pairwise(strides)):
        raise ConfigError(
            f"strides={list(strides)}: each level of a neck has double the stride of the previous one"
        )
    more = getattr(top_block, "num_levels", 0)
    return [*strides, *(strides[-1] * 2**k for k in range(1, more + 1))]


@config_target
def level_names(strides: Sequence[int], top_block: Any = None) -> list[str]:
    """Names of a neck's levels, fine to coarse: ``p2`` has stride 4."""
    return [f"p{int(math.log2(stride))}" for stride in level_strides(strides, top_block)]


@config_target
def last_name(strides: Sequence[int]) -> str:
    """Name of a neck's coarsest level without those that its top block adds."""
    return level_names(strides)[-1]


@config_target
def finest_stride(strides: Sequence[int]) -> int:
    """Stride of a neck's finest level, in pixels; the argument is as in ``level_strides``."""
    return level_strides(strides)[0]


@config_target
def fused_top_block(top_block: Any = None, num_layers: int | None = None) -> Any:
    """The top block of a neck that fuses the top block's levels with the others; None for other necks.

    Args:
        top_block: the neck's top block.
        num_layers: how often the neck fuses all levels, as BiFPN does; None if it does not.
    """
    return top_block if num_layers else None


@config_target
def anchor_sizes(
    strides: Sequence[int], top_block: Any = None, scales: Sequence[float] = (8.0,), finest: int = 4
) -> list[list[float]]:
    """Sides of the square anchors of each level in pixels: ``scales`` times the level's stride.

    A single level has the anchors of all levels of a pyramid, as in R-CNNs without FPN.

    Args:
        strides: as in ``level_strides``.
        top_block: as in ``level_strides``.
        scales: sides of the anchors, in cells of their level.
        finest: finest stride of the pyramid whose anchors a single level has, in pixels.
    """
    of_levels = level_strides(strides, top_block)
    if len(of_levels) == 1:
        return [[scale * finest * 2**octave for octave in range(OCTAVES) for scale in scales]]
    return [[scale * stride for scale in scales] for stride in of_levels]


@config_target
def anchors_per_cell(aspect_ratios: Sequence[Any], sizes: Sequence[Any]) -> int:
    """Number of anchors in each cell of a level.

    Args:
        aspect_ratios: one list for all levels, or a list of lists, one for each level.
        sizes: sides of the anchors in pixels, likewise.
    """
    return math.prod(len(v[0]) if isinstance(v[0], Sequence) else len(v) for v in (aspect_ratios, sizes))


@config_target
def pooler_scales(strides: Sequence[int]) -> list[float]:
    """Scale of each level for an ROI pooler, in cells per pixel."""
    return [1.0 / stride for stride in level_strides(strides)]


@config_target
def last(dims: Sequence[int]) -> int:
    """Width of a head's last layer.

    Args:
        dims: widths of all layers.

    Raises:
        ConfigError: there is no layer.
    """
    if not dims:
        raise ConfigError("fc_dims=[]: a box head needs at least one fully connected layer")
    return dims[-1]
