"""Arguments of a backbone, as configs hold them, in the forms that the probe takes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from ..errors import ConfigError
from ..utils.checks import check_outputs
from ..utils.sizes import Size
from .spec import Feature, Kwargs

__all__ = ["check_knobs", "check_output_arguments", "choose", "merge_kwargs", "parse_size"]


def merge_kwargs(timm_kwargs: Mapping[str, Any] | None, **named: Any) -> Kwargs:
    """Keywords for ``timm.create_model``, in a form by which a probe is remembered.

    Args:
        timm_kwargs: the user's.
        named: those that are arguments of their own; None: the model's default.

    Raises:
        ConfigError: one is given in both ways.
    """
    kwargs = dict(timm_kwargs or {})
    given = {key: value for key, value in named.items() if value is not None}
    for key in given.keys() & kwargs.keys():
        raise ConfigError(f"{key}={given[key]} and timm_kwargs.{key}={kwargs[key]}: give one of them")
    return tuple((key, _hashable(value)) for key, value in {**kwargs, **given}.items())


def parse_size(fixed_input_size: bool | int | Sequence[int] | None) -> bool | Size | None:
    """None, True (the native size) or (height, width) in pixels.

    Raises:
        ConfigError: it is none of these, a side or two.
    """
    if fixed_input_size is None or isinstance(fixed_input_size, bool):
        return fixed_input_size or None
    square = isinstance(fixed_input_size, (int, float, str))
    sides: tuple[Any, ...] = (fixed_input_size,) * 2 if square else tuple(fixed_input_size)  # type: ignore[arg-type]
    if len(sides) != 2 or not all(isinstance(side, int) and side >= 1 for side in sides):
        raise ConfigError(
            f"fixed_input_size={fixed_input_size}: None, True (the native size), a side or (height, width)"
        )
    return sides[0], sides[1]


def check_knobs(in_chans: Any, drop_path_rate: Any, output_stride: Any, freeze_at: Any, freeze: Any) -> None:
    """Raise ConfigError unless arguments of a backbone have the right types and ranges."""
    if not isinstance(in_chans, int) or in_chans < 1:
        raise ConfigError(f"in_chans={in_chans}: a whole number of channels >= 1")
    number = isinstance(drop_path_rate, (int, float))
    if drop_path_rate is not None and not (number and 0 <= drop_path_rate < 1):
        raise ConfigError(f"drop_path_rate={drop_path_rate}: a probability, 0 <= drop_path_rate < 1")
    if output_stride not in (None, 8, 16, 32):
        raise ConfigError(f"output_stride={output_stride}: 8, 16 or 32")
    if not isinstance(freeze_at, int) or freeze_at < 0:
        raise ConfigError(f"freeze_at={freeze_at}: a whole number of stages, 0 for none, 1 for the stem")
    listed = isinstance(freeze, Sequence) and not isinstance(freeze, str)
    if not listed or not all(isinstance(pattern, str) for pattern in freeze):
        raise ConfigError(f"freeze={freeze}: a list of patterns, such as ['blocks.0.*']")


class _Frozen(dict[str, Any]):
    """A dict that a cache can remember."""

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(tuple(self.items()))


def _hashable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return _Frozen({key: _hashable(inner) for key, inner in value.items()})
    return (
        tuple(map(_hashable, value)) if isinstance(value, Sequence) and not isinstance(value, str) else value
    )


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


def check_output_arguments(
    remaps: Sequence[str],
    strides: Sequence[int],
    out_indices: Sequence[int] | None,
    out_features: Sequence[str] | None = None,
) -> None:
    """Raise ConfigError unless each output has a name, a stride and, where given, an index."""
    check_outputs(remaps, strides, **({} if out_indices is None else {"out_indices": out_indices}))
    if not all(isinstance(name, str) and name.isidentifier() for name in remaps):
        raise ConfigError(f"remaps={list(remaps)}: names must be identifiers, such as 'res2'")
    taken = [name for name in remaps if hasattr(nn.ModuleDict, name)]
    if taken:
        raise ConfigError(f"remaps={list(remaps)}: {taken[0]!r} is a name of torch's own; give it another")
    if out_features is not None and (not out_features or not set(out_features) <= set(remaps)):
        raise ConfigError(f"out_features={list(out_features)}: some of {', '.join(remaps)} are needed")
