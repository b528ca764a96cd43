"""Check the arguments of a backbone, and convert them from the form of configs to that of the probe."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from ..errors import ConfigError
from ..utils.checks import check_outputs
from ..utils.sizes import Size
from .spec import Feature, Kwargs

__all__ = [
    "REMAPS",
    "check_arguments",
    "check_output_arguments",
    "merge_kwargs",
    "name_outputs",
    "parse_size",
    "select_features",
]

#: Names of the outputs by default, ``res{k}`` for stride ``2**k``
REMAPS = ("res2", "res3", "res4", "res5")


def check_arguments(
    in_chans: Any, drop_path_rate: Any, output_stride: Any, freeze_at: Any, freeze: Any
) -> None:
    """Check the types and ranges of the arguments of a backbone that do not concern its outputs.

    Args:
        in_chans: number of image channels, >= 1.
        drop_path_rate: probability, 0 <= drop_path_rate < 1, or None.
        output_stride: 8, 16 or 32 pixels, or None.
        freeze_at: number of stages, >= 0.
        freeze: list of patterns.

    Raises:
        ConfigError: a value has another type or is out of range.
    """
    if not isinstance(in_chans, int) or in_chans < 1:
        raise ConfigError(f"in_chans={in_chans}: must be a whole number of channels >= 1")
    number = isinstance(drop_path_rate, (int, float))
    if drop_path_rate is not None and not (number and 0 <= drop_path_rate < 1):
        raise ConfigError(f"drop_path_rate={drop_path_rate}: must be a probability, 0 <= drop_path_rate < 1")
    if output_stride not in (None, 8, 16, 32):
        raise ConfigError(f"output_stride={output_stride}: must be 8, 16 or 32")
    if not isinstance(freeze_at, int) or freeze_at < 0:
        raise ConfigError(
            f"freeze_at={freeze_at}: must be a whole number of stages; 0 freezes nothing, 1 the stem"
        )
    is_list = isinstance(freeze, Sequence) and not isinstance(freeze, str)
    if not is_list or not all(isinstance(pattern, str) for pattern in freeze):
        raise ConfigError(f"freeze={freeze}: must be a list of patterns, such as ['blocks.0.*']")


def name_outputs(remaps: Sequence[str], strides: Sequence[int]) -> Sequence[str]:
    """Return the names of the outputs, which follow from the strides if only these are given.

    Args:
        remaps: the names; ``REMAPS`` itself, and not an equal sequence, if the user gives none.
        strides: strides of the outputs in pixels.

    Returns:
        ``res{k}`` for strides ``2**k`` of another number than ``remaps``; otherwise ``remaps``.
    """
    if remaps is not REMAPS or not isinstance(strides, Sequence) or len(strides) == len(remaps):
        return remaps
    names = {2**k: f"res{k}" for k in range(16)}
    known = all(isinstance(stride, int) and stride in names for stride in strides)
    return [names[stride] for stride in strides] if known else remaps


def check_output_arguments(
    remaps: Sequence[str],
    strides: Sequence[int],
    out_indices: Sequence[int] | None,
    out_features: Sequence[str] | None = None,
) -> None:
    """Check that each output of a backbone has a valid name, stride and, if indices are given, an index.

    Args:
        remaps: names of the outputs, distinct identifiers.
        strides: strides of the outputs in pixels, each >= 1.
        out_indices: indices of timm features, one per output, or None.
        out_features: the used outputs, some of ``remaps``; None: all.

    Raises:
        ConfigError: a value is invalid, or the lists differ in length.
    """
    check_outputs(remaps, strides, **({} if out_indices is None else {"out_indices": out_indices}))
    if not all(isinstance(name, str) and name.isidentifier() for name in remaps):
        raise ConfigError(f"remaps={list(remaps)}: names must be identifiers, such as 'res2'")
    reserved = [name for name in remaps if hasattr(nn.ModuleDict, name)]
    if reserved:
        raise ConfigError(f"remaps={list(remaps)}: torch reserves {reserved[0]!r}; use another name")
    if out_features is not None and (not out_features or not set(out_features) <= set(remaps)):
        raise ConfigError(f"out_features={list(out_features)}: must be some of {', '.join(remaps)}")


def parse_size(fixed_input_size: bool | int | Sequence[int] | None) -> bool | Size | None:
    """Convert ``fixed_input_size`` to one of three forms.

    Args:
        fixed_input_size: None, a bool, a side in pixels or (height, width) in pixels; sides are >= 1.

    Returns:
        None: images keep their size; True: images are resized to the native size of the model; or
        (height, width) in pixels.

    Raises:
        ConfigError: the value has another form.
    """
    if fixed_input_size is None or isinstance(fixed_input_size, bool):
        return fixed_input_size or None
    square = isinstance(fixed_input_size, (int, float, str))
    sides: tuple[Any, ...] = (fixed_input_size,) * 2 if square else tuple(fixed_input_size)  # type: ignore[arg-type]
    if len(sides) != 2 or not all(isinstance(side, int) and side >= 1 for side in sides):
        raise ConfigError(
            f"fixed_input_size={fixed_input_size}: must be None, True (the native size), a side or "
            "(height, width), in pixels"
        )
    return sides[0], sides[1]


def merge_kwargs(timm_kwargs: Mapping[str, Any] | None, **named: Any) -> Kwargs:
    """Merge keyword arguments for ``timm.create_model`` into a hashable form, by which probes are cached.

    Args:
        timm_kwargs: ``timm_kwargs`` of the config.
        named: keyword arguments that are arguments of the backbone itself; None: the default of the model.

    Raises:
        ConfigError: both contain the same key.
    """
    kwargs = dict(timm_kwargs or {})
    set_by_name = {key: value for key, value in named.items() if value is not None}
    for key in set_by_name.keys() & kwargs.keys():
        raise ConfigError(f"{key}={set_by_name[key]} and timm_kwargs.{key}={kwargs[key]}: give one of them")
    return tuple((key, _hashable(value)) for key, value in {**kwargs, **set_by_name}.items())


class _HashableDict(dict[str, Any]):
    """A dict that a cache accepts as a key."""

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(tuple(self.items()))


def _hashable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return _HashableDict({key: _hashable(inner) for key, inner in value.items()})
    if isinstance(value, Sequence) and not isinstance(value, str):
        return tuple(map(_hashable, value))
    return value


def select_features(
    features: Sequence[Feature],
    strides: Sequence[int],
    out_indices: Sequence[int] | None = None,
    used: Sequence[int] | None = None,
) -> list[Feature]:
    """Select the feature from which each used output is computed.

    Args:
        features: all features of the model, from shallow to deep.
        strides: strides of the outputs in pixels, each >= 1.
        out_indices: the user's selection, one index per output, negative ones counted from the end; None:
            the feature with the nearest stride for each output, the deepest one of several. If several
            used outputs share features of one stride, they are spread over these features.
        used: positions of the used outputs in ``strides``; None: all.

    Returns:
        One feature per used output.

    Raises:
        ConfigError: an index is out of range.
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

    targets = [strides[i] for i in used]
    nearest = [min((f.stride for f in features), key=lambda s: abs(math.log2(s / t))) for t in targets]
    selected = []
    for i, stride in enumerate(nearest):
        candidates = [feature for feature in features if feature.stride == stride]
        position = nearest[:i].count(stride)
        selected.append(candidates[_spread(position, nearest.count(stride), len(candidates))])
    return selected


def _spread(position: int, outputs: int, depth: int) -> int:
    """Return which of ``depth`` blocks the output ``position`` of ``outputs`` uses.

    The blocks are evenly spaced from a third of the depth on, and include the last: blocks 3, 5, 7 and 11
    of 12 for four outputs, as in the detection models of XCiT. A single output uses the last block.
    """
    if position == outputs - 1:
        return depth - 1
    return max(0, math.ceil(depth * (position + 2) / (outputs + 2)) - 1)
