"""Build the objects that the nodes of a config describe, and nothing else.

A config may come from a stranger, and a ``_target_`` is code that runs. So its name is imported and called
only if it stands for a part of a detector, of its data or of its training, or if the user trusts its package.
"""

from __future__ import annotations

import dataclasses
import os
import pkgutil
import sys
from collections.abc import Hashable, Iterable, Mapping
from typing import Any, TypeVar

from omegaconf import DictConfig, ListConfig, OmegaConf

from ..errors import ConfigError
from .text import one_line

__all__ = ["TRUST", "config_target", "instantiate", "resolve_target", "trust", "trusted"]

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

    Nested nodes are built first, as in ``detectron2.config.instantiate``.

    Args:
        node: a mapping with ``_target_``, or a list; anything else is returned as it is.

    Raises:
        ConfigError: a ``_target_`` is none that a config may name.
    """
    if isinstance(node, (list, ListConfig)):
        return [instantiate(value) for value in node]  # a ListConfig would evaluate texts once more
    if isinstance(node, DictConfig) and dataclasses.is_dataclass(node._metadata.object_type):
        return OmegaConf.to_object(node)
    if not isinstance(node, Mapping) or "_target_" not in node:
        return node
    target = node["_target_"]
    if isinstance(target, str):
        target = resolve_target(target, node._get_full_key(None) if isinstance(node, DictConfig) else "")
    elif isinstance(target, Mapping) or not callable(target):  # Python code may have put a class there
        raise ConfigError(f"_target_={one_line(target)} is not the name of a class or function")
    arguments = {str(key): instantiate(value) for key, value in node.items() if key != "_target_"}
    return target(**arguments)


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
