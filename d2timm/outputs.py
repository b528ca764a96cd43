"""The outputs of a backbone: their names and strides, and the feature that each is made of."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import nn

from .errors import ConfigError
from .features import Feature

__all__ = ["check_outputs", "choose"]


def choose(
    features: Sequence[Feature], strides: Sequence[int], out_indices: Sequence[int] | None
) -> list[Feature]:
    """The feature that each output is made of.

    Args:
        features: what the model gives, shallow to deep.
        strides: of the outputs, in pixels.
        out_indices: the user's choice, negative ones counted from the end; None: for each output those
            whose stride is nearest, the deepest of equals.

    Raises:
        ConfigError: an index that is out of range.
    """
    if out_indices is not None:
        for index in out_indices:
            if not isinstance(index, int) or not -len(features) <= index < len(features):
                raise ConfigError(
                    f"out_indices={list(out_indices)}: {index!r} is out of range, the model has "
                    f"{len(features)} features: 0 to {len(features) - 1}, or negative from the end"
                )
        return [features[index] for index in out_indices]

    nearest = [min((f.stride for f in features), key=lambda s: abs(math.log2(s / t))) for t in strides]
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
    given: dict[str, Any] = {"remaps": remaps, "strides": strides}
    if out_indices is not None:
        given["out_indices"] = out_indices
    for key, value in given.items():
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise ConfigError(f"{key}={value}: a list is needed, one entry an output")
    if len({len(value) for value in given.values()}) > 1 or not remaps:
        told = ", ".join(f"{key} has {len(value)}" for key, value in given.items())
        raise ConfigError(f"one entry an output is needed, and at least one output: {told}")
    if not all(isinstance(name, str) and name.isidentifier() for name in remaps):
        raise ConfigError(f"remaps={list(remaps)}: names must be identifiers, such as 'res2'")
    if len(set(remaps)) < len(remaps):
        raise ConfigError(f"remaps={list(remaps)}: two outputs have the same name; give each its own")
    taken = [name for name in remaps if hasattr(nn.ModuleDict, name)]
    if taken:
        raise ConfigError(f"remaps={list(remaps)}: {taken[0]!r} is a name of torch's own; give it another")
    if not all(isinstance(stride, int) and stride >= 1 for stride in strides):
        raise ConfigError(f"strides={list(strides)}: strides are whole pixels >= 1")
    if out_features is not None and (not out_features or not set(out_features) <= set(remaps)):
        raise ConfigError(f"out_features={list(out_features)}: some of {', '.join(remaps)} are needed")
