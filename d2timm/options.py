"""Arguments of a backbone, as configs hold them, in the forms that the probe takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .errors import ConfigError
from .features import Kwargs, Size

__all__ = ["merge_kwargs", "parse_size"]


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
