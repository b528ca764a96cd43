"""Build the objects that the nodes of a config describe, and nothing else.

A config may come from a stranger, and a ``_target_`` is code that runs. So its name is imported and called
only if it stands for a part of a detector, of its data or of its training, or if the user trusts its package.
"""

from __future__ import annotations

import dataclasses
import os
import pkgutil
import sys
import traceback
from collections.abc import Hashable, Iterable, Mapping
from typing import Any, TypeVar

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ..errors import ConfigError
from .text import one_line
from .values import check_arguments

__all__ = [
    "TRUST",
    "UNSUITABLE",
    "check_targets",
    "config_target",
    "instantiate",
    "resolve_target",
    "trust",
    "trusted",
]

T = TypeVar("T")

#: Environment variable with the packages that the user trusts, which child processes inherit
TRUST = "D2TIMM_TRUST"
#: Modules of which a config may name every class
MODULES = (
    "detectron2.data.transforms",
    "detectron2.layers",
    "detectron2.modeling",
    "detectron2.solver",
    "fvcore.common.param_scheduler",
    "fvcore.transforms",
    "timm.layers",
    "timm.optim",
    "timm.scheduler",
    "torch.nn",
    "torch.optim",
)
#: but for these, which load code or weights of other packages
EXCEPT = ("detectron2.modeling.mmdet_wrapper",)
#: Further classes and functions that a config may name, by the modules that define them
FURTHER = (
    "builtins.dict",
    "detectron2.data.dataset_mapper.DatasetMapper",
    "detectron2.solver.build.get_default_optimizer_params",
    "timm.layers.create_act.get_act_layer",
    "timm.layers.create_norm.get_norm_layer",
)
#: Packages that may be imported to look a name up
IMPORTED = (
    *MODULES,
    "builtins",
    "d2timm.backbone",
    "d2timm.data",
    "d2timm.engine",
    "d2timm.modeling",
    "detectron2.data",
)

#: Errors that a class raises for arguments that do not suit it
UNSUITABLE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    MemoryError,
    RuntimeError,
    TypeError,
    ValueError,
)

_OWN: set[Any] = set()  # what config_target has marked


def config_target(part: T) -> T:
    """Allow configs to name a class or function of d2timm as ``_target_``."""
    _OWN.add(part)
    return part


def trust(*packages: str) -> None:
    """Let configs name everything that packages or modules define, in this process and its children."""
    os.environ[TRUST] = ",".join(dict.fromkeys([*trusted(), *packages]))


def trusted() -> list[str]:
    """The packages that the user trusts."""
    return os.environ.get(TRUST, "").replace(",", " ").split()


def instantiate(node: Any) -> Any:
    """Build the object of a node: its ``_target_`` is called with its other keys as arguments.

    Nested nodes are built first, as in ``detectron2.config.instantiate``. Before anything is built, all of
    them are checked.

    Args:
        node: a mapping with ``_target_``, or a list; anything else is returned as it is.

    Raises:
        ConfigError: as ``check_targets``, or a target cannot be built with its arguments.
    """
    return _build(node, _checked(node))


def check_targets(node: Any) -> None:
    """Check the nodes of a tree without building them: each ``_target_`` and its arguments.

    Raises:
        ConfigError: a ``_target_`` is none that a config may name, or an argument is unknown to it or has
            another type or range than it declares, or a value refers to one that does not exist.
    """
    _checked(node)


@dataclasses.dataclass(frozen=True)
class _Checked:
    """A node and its values, without ``_target_``; values that refer to others are those, found once."""

    node: Any  # kept, so that no other object gets its id
    values: dict[str, Any]


def _checked(node: Any) -> dict[int, _Checked]:
    """Check a node and those in it, as ``check_targets``; returns them by their ids."""
    checked: dict[int, _Checked] = {}
    try:
        _check(node, checked, set())
    except RecursionError:
        raise ConfigError("the config is nested too deeply, or a node of it refers to itself") from None
    return checked


def _check(node: Any, checked: dict[int, _Checked], within: set[int]) -> None:
    """Check a node, unless it has been checked: many values may refer to it.

    Args:
        node: any value of a tree.
        checked: those that have been, to which it is added.
        within: the ids of the nodes that it is in.
    """
    if not isinstance(node, (list, ListConfig, Mapping)) or _is_dataclass(node):
        return
    if id(node) in within:
        raise RecursionError
    if id(node) in checked:
        return
    values = _values(node)
    checked[id(node)] = _Checked(node, values)
    within.add(id(node))
    for value in values.values():
        _check(value, checked, within)
    within.remove(id(node))
    if isinstance(node, Mapping) and "_target_" in node:
        _check_arguments(node, values)


def _values(node: Any) -> dict[str, Any]:
    """The values of a node that are checked with it, by their names or numbers."""
    if not isinstance(node, Mapping):
        return {str(index): value for index, value in enumerate(_parts(node))}
    if "_target_" in node:
        return _arguments(node)
    return {str(key): node[key] for key in node if not _is_elsewhere(node, key)}


def _check_arguments(node: Mapping[str, Any], values: dict[str, Any]) -> None:
    plain = {key: value for key, value in values.items() if not _contains_nodes(value)}
    objects = {key: value for key, value in values.items() if _is_of_class(value)}
    check_arguments(_target(node), values, plain, objects, _place(node))


def _build(node: Any, checked: Mapping[int, _Checked]) -> Any:
    if isinstance(node, (list, ListConfig)):
        return [_build(value, checked) for value in checked[id(node)].values.values()]
    if _is_dataclass(node):
        return OmegaConf.to_object(node)
    if not isinstance(node, Mapping) or "_target_" not in node:
        return node
    values = checked[id(node)].values
    target, arguments = _target(node), {key: _build(value, checked) for key, value in values.items()}
    try:
        return target(**arguments)
    except ConfigError:
        raise
    except UNSUITABLE as error:
        # an assertion without a message: its line of code says what was expected
        reason = str(error) or traceback.extract_tb(error.__traceback__)[-1].line or ""
        label = getattr(target, "__qualname__", str(target))
        raise ConfigError(f"{_place(node) or label} cannot be built: {one_line(reason)}") from error


def _target(node: Mapping[str, Any]) -> Any:
    target = node["_target_"]
    if isinstance(target, str):
        return resolve_target(target, _place(node))
    if isinstance(target, Mapping) or not callable(target):  # Python code may have put a class there
        raise ConfigError(f"_target_={one_line(target)} is not the name of a class or function")
    return target


def _arguments(node: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return {str(key): value for key, value in node.items() if key != "_target_"}
    except OmegaConfBaseException as error:
        raise ConfigError(f"{_place(node)}: {one_line(error)}") from None


def _parts(node: Any) -> list[Any]:
    try:
        return list(node)  # a ListConfig would evaluate texts once more
    except OmegaConfBaseException as error:
        raise ConfigError(f"{_place(node)}: {one_line(error)}") from None


def _place(node: Any) -> str:
    """The place of a node in its tree, such as ``model.backbone``."""
    parent = node._get_parent() if OmegaConf.is_config(node) else None
    return "" if parent is None else str(parent._get_full_key(node._key()))


def _is_elsewhere(node: Mapping[str, Any], key: str) -> bool:
    """Whether a value refers to another place of the tree, or has yet to be set."""
    return isinstance(node, DictConfig) and (
        OmegaConf.is_interpolation(node, key) or OmegaConf.is_missing(node, key)
    )


def _contains_nodes(value: Any) -> bool:
    if isinstance(value, (list, ListConfig)):
        return any(map(_contains_nodes, _parts(value)))
    return isinstance(value, Mapping) and "_target_" in value


def _is_of_class(value: Any) -> bool:
    """Whether a value is a node that a class builds; what a function returns may be a number or a text."""
    return isinstance(value, Mapping) and "_target_" in value and isinstance(_target(value), type)


def _is_dataclass(node: Any) -> bool:
    return isinstance(node, DictConfig) and dataclasses.is_dataclass(node._metadata.object_type)


def resolve_target(name: str, place: str = "") -> Any:
    """The class or function that a ``_target_`` names.

    Args:
        name: the value of ``_target_``.
        place: the node that has it, for errors, such as ``model.backbone``.

    Raises:
        ConfigError: it does not exist, or a config may not name it; unless its package is trusted, nothing
            is imported then.
    """
    label = f"{place}._target_={one_line(name)}".removeprefix(".")
    if not _within(name, (*IMPORTED, *trusted())):
        raise ConfigError(_refusal(name, label))
    try:
        target = pkgutil.resolve_name(name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"{label}: {one_line(error)}") from None
    if not _is_allowed(target):
        raise ConfigError(_refusal(name, label))
    return target


def _is_allowed(target: Any) -> bool:
    """Whether a config may name an object; what counts is where it is defined."""
    if isinstance(target, Hashable) and target in _OWN:
        return True
    module, name = getattr(target, "__module__", None), getattr(target, "__qualname__", None)
    if not callable(target) or not isinstance(module, str) or not isinstance(name, str):
        return False
    if f"{module}.{name}" in FURTHER or _within(f"{module}.{name}", trusted()):
        return True
    return isinstance(target, type) and _within(module, MODULES) and not _within(module, EXCEPT)


def _within(name: str, packages: Iterable[str]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def _refusal(name: str, label: str) -> str:
    text = f"{label}: a config may only name parts of detectors, data and schedules"
    package = name.partition(".")[0]
    if package in sys.stdlib_module_names or not package.isidentifier():
        return text
    named = one_line(name) if package in {known.partition(".")[0] for known in IMPORTED} else package
    return f"{text}; if you trust this code, allow it: --trust {named} or {TRUST}={named}"
