"""Types and ranges of the values in configs, declared by annotations where the values are used.

def create_optimizer(params: list[dict[str, Any]], lr: Annotated[float, Bounds(above=0)] = 1e-4): ...
"""

from __future__ import annotations

import collections.abc
import functools
import inspect
import math
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import is_dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from omegaconf import ListConfig
from omegaconf.errors import OmegaConfBaseException

from ..errors import ConfigError
from .bounds import Bounds
from .checks import suggest
from .text import one_line
from .undeclared import UNDECLARED

__all__ = ["check_arguments", "check_fields", "check_value", "fits"]

#: Type -> what errors call its values
NAMES: dict[Any, str] = {
    None: "null",
    NoneType: "null",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    Any: "of any type",
}
LISTS = (list, tuple, ListConfig)
PLAIN = (str, int, float, Mapping, *LISTS, NoneType)  # what a config has beside nodes


def check_arguments(
    target: Callable[..., Any],
    names: Iterable[str],
    values: Mapping[str, Any],
    objects: Mapping[str, Any],
    place: str,
) -> None:
    """Check the arguments of a node against the signature of its target.

    Args:
        target: the class or function; one without a signature is not checked.
        names: the names of all arguments.
        values: the values of those that no node builds.
        objects: the nodes of those that a class builds.
        place: the node, for errors, such as ``model.backbone``.

    Raises:
        ConfigError: an argument is unknown, or has another type or range than declared.
    """
    signature = _signature(target)
    if signature is None:
        return
    parameters = signature.parameters
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    known = [name for name, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    for name in names:
        if name not in known and not open_ended:
            label = getattr(target, "__qualname__", str(target))
            raise ConfigError(
                f"{_join(place, name)}: {label} has no argument {one_line(name)!r}: {suggest(name, known)}"
            )
    for name, hint in _hints(target).items():
        if name in objects and _is_scalar(hint):
            raise ConfigError(f"{_join(place, name)}={one_line(objects[name])}: must be {_describe(hint)}")
        if name not in values or (name in known and values[name] is parameters[name].default):
            continue
        limits = get_args(hint)[1:] if get_origin(hint) is Annotated else ()
        if values[name] == math.inf and not _is_own(target) and all(_in_range(math.inf, b) for b in limits):
            continue  # as detectron2 takes it for a limit
        check_value(values[name], hint, _join(place, name))


def check_fields(kind: type, node: Mapping[str, Any], place: str) -> None:
    """Check the values of a node against the annotations of a dataclass; other keys are not checked.

    Raises:
        ConfigError: a value has another type or range than declared.
    """
    for name, hint in get_type_hints(kind, include_extras=True).items():
        if name not in node:
            continue
        try:
            value = node[name]
            if is_dataclass(hint) and isinstance(hint, type) and isinstance(value, Mapping):
                check_fields(hint, value, _join(place, name))
            else:
                check_value(value, hint, _join(place, name))
        except OmegaConfBaseException as error:
            raise ConfigError(f"{_join(place, name)}: {one_line(error)}") from None


def check_value(value: Any, hint: Any, place: str) -> None:
    """Raise ConfigError unless a value has the annotated type and range; ``place`` is its key."""
    if not fits(value, hint):
        shown = one_line(value) if str(value).strip() else repr(value)
        raise ConfigError(f"{place}={shown}: must be {_describe(hint)}")


def fits(value: Any, hint: Any) -> bool:
    """Whether a value has the annotated type and range; numbers must be finite, and objects always fit."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return fits(value, inner[0]) and all(_in_range(value, bounds) for bounds in inner[1:])
    if origin in (Union, UnionType):
        return any(fits(value, option) for option in inner)
    if origin is Literal:
        return any(value == option and type(value) is type(option) for option in inner)
    if hint in (None, NoneType):
        return value is None
    if hint is bool:
        return isinstance(value, bool)
    if hint in (int, float):
        number = isinstance(value, int if hint is int else (int, float)) and not isinstance(value, bool)
        return number and abs(value) <= sys.float_info.max  # infinity and nan are not
    if hint is str:
        return isinstance(value, str)
    if origin is tuple and inner and inner[-1] is not Ellipsis:
        return isinstance(value, LISTS) and len(value) == len(inner) and all(map(fits, value, inner))
    if origin in (list, tuple, collections.abc.Sequence):
        return isinstance(value, LISTS) and all(fits(part, inner[0]) for part in value)
    if origin in (dict, collections.abc.Mapping):
        return isinstance(value, Mapping) and all(fits(part, inner[1]) for part in value.values())
    if origin is collections.abc.Callable:
        return not isinstance(value, PLAIN)
    if _is_class(hint):
        return isinstance(value, hint) or not isinstance(value, PLAIN)
    return True  # an object, which a node or Python code has built


def _in_range(value: Any, bounds: Any) -> bool:
    if not isinstance(bounds, Bounds) or value is None:
        return True
    return all(map(bounds.contains, value if isinstance(value, LISTS) else [value]))


def _describe(hint: Any) -> str:
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        limits = " ".join(str(bounds) for bounds in inner[1:] if isinstance(bounds, Bounds))
        return f"{_describe(inner[0])} {limits}".strip()
    if origin in (Union, UnionType):
        return ", or ".join(map(_describe, inner))
    if origin is Literal:
        return " or ".join(map(str, inner))
    if origin is tuple and inner and inner[-1] is not Ellipsis:
        return f"a list of {len(inner)} values"
    if origin in (list, tuple, collections.abc.Sequence):
        return f"a list, each {_describe(inner[0])}" if inner else "a list"
    if origin in (dict, collections.abc.Mapping):
        return f"keys with values, each {_describe(inner[1])}"
    if origin is collections.abc.Callable:
        return "a node with a _target_"
    if _is_class(hint):
        return f"a node with the _target_ of a {hint.__name__}"
    return NAMES.get(hint) or str(getattr(hint, "__name__", hint))


@functools.cache
def _signature(target: Callable[..., Any]) -> inspect.Signature | None:
    try:
        return inspect.signature(target)
    except (TypeError, ValueError):  # of some built-in types
        return None


@functools.cache
def _hints(target: Callable[..., Any]) -> dict[str, Any]:
    """The annotations of a target; of other packages, those of numbers and modules only."""
    initialize: Any = getattr(target, "__init__") if isinstance(target, type) else target  # noqa: B009
    if _is_own(target):
        return {**_undeclared(target), **get_type_hints(initialize, include_extras=True)}
    try:
        hints = get_type_hints(initialize)
    except (NameError, TypeError, AttributeError):  # names that exist only while types are checked
        hints = {}
    declared = {name: hint for name, hint in hints.items() if _is_number(hint) or _is_class(hint)}
    return {**declared, **_undeclared(target)}


def _undeclared(target: Callable[..., Any]) -> dict[str, Any]:
    hints: dict[str, Any] = {}
    for kind in reversed(getattr(target, "__mro__", ())):
        hints.update(UNDECLARED.get(f"{kind.__module__}.{kind.__qualname__}", {}))
    return hints


def _is_own(target: Callable[..., Any]) -> bool:
    return getattr(target, "__module__", "").startswith(f"{__name__.partition('.')[0]}.")


def _is_number(hint: Any) -> bool:
    if get_origin(hint) in (Union, UnionType):
        return all(option is NoneType or _is_number(option) for option in get_args(hint))
    return hint in (int, float, bool)


def _is_scalar(hint: Any) -> bool:
    """Whether an annotation is one of numbers and texts only."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _is_scalar(inner[0])
    if origin in (Union, UnionType):
        return all(map(_is_scalar, inner))
    return origin is Literal or hint in (bool, int, float, str, None, NoneType)


def _is_class(hint: Any) -> bool:
    """Whether an annotation is a class whose objects a node builds."""
    own = isinstance(hint, type) and hint.__module__ not in ("builtins", "typing")
    return own and not getattr(hint, "_is_protocol", False)


def _join(place: str, name: str) -> str:
    return f"{place}.{name}" if place else name
