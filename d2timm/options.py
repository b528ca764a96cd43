"""Arguments of a backbone, as configs hold them, in the forms that the probe takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .errors import ConfigError
from .features import Kwargs, Size

__all__ = ["check_knobs", "merge_kwargs", "parse_size"]


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
