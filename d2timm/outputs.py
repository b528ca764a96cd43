"""The outputs of a backbone: their names and strides, and the feature that each is made of."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import nn

from .errors import ConfigError
from .features import Feature
from .levels import check_entries

__all__ = ["check_outputs", "choose"]


def choose(
    features: Sequence[Feature],
    strides: Sequence[int],
    out_indices: Sequence[int] | None = None,
    used: Sequence[int] | None = None,
) -> list[Feature]:
    """The feature that each output that is used is made of.

    Args:
        features: what the model gives, shallow to deep.
        strides: of the outputs, in pixels.
        out_indices: the user's choice, negative ones counted from the end; None: for each output those
            whose stride is nearest, the deepest of equals. Blocks of one stride are spread over the
            outputs that are used alone, so that a single one has the last block.
        used: numbers of the outputs that are used; None: all.

    Raises:
        ConfigError: an index that is out of range.
    """
    used = range(len(strides)) if used is None else used
    if out_indices is not None:
        for index in out_indices:
            if not isinstance(index, int) or not -len(features) <= index < len(features):
                raise ConfigError(
                    f"out_indices={list(out_indices)}: {index!r} is out of range, the model has "
                    f"{len(features)} features: 0 to {len(features) - 1}, or negative from the end"
                )
        return [features[out_indices[i]] for i in used]

    wanted = [strides[i] for i in used]
    nearest = [min((f.stride for f in features), key=lambda s: abs(math.log2(s / t))) for t in wanted]
    chosen = []
    for i, stride in enumerate(nearest):
        alike = [feature for feature in features if feature.stride == stride]
        share = nearest.count(stride)
        place = nearest[:i].count(stride)
        chosen.append(alike[_spread(place, share, len(alike))])
    return chosen


def _spread(place: int, share: int, depth: int) -> int:
    """Which of ``depth`` blocks the output ``place`` of ``share`` takes.

    Evenly spaced from a third of the depth on, and the last: blocks 3, 5, 7 and 11 of 12 for four outputs,
    those of XCiT's detection models.
    """
    if place == share - 1:
        return depth - 1
    return max(0, math.ceil(depth * (place + 2) / (share + 2)) - 1)


def check_outputs(
    remaps: Sequence[str],
    strides: Sequence[int],
    out_indices: Sequence[int] | None,
    out_features: Sequence[str] | None = None,
) -> None:
    """Raise ConfigError unless each output has a name, a stride and, where given, an index."""
    check_entries(remaps, strides, **({} if out_indices is None else {"out_indices": out_indices}))
    if not all(isinstance(name, str) and name.isidentifier() for name in remaps):
        raise ConfigError(f"remaps={list(remaps)}: names must be identifiers, such as 'res2'")
    taken = [name for name in remaps if hasattr(nn.ModuleDict, name)]
    if taken:
        raise ConfigError(f"remaps={list(remaps)}: {taken[0]!r} is a name of torch's own; give it another")
    if out_features is not None and (not out_features or not set(out_features) <= set(remaps)):
        raise ConfigError(f"out_features={list(out_features)}: some of {', '.join(remaps)} are needed")
