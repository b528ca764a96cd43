"""Config files: load, override, save.

A config is detectron2's LazyConfig tree. Overrides are stricter than detectron2's: a key that does not
exist is an error (``+key=value`` adds one on purpose, ``~key`` deletes one), and so is a text where a
number stands. What is saved is plain YAML that a safe loader reads.
"""

from __future__ import annotations

import builtins
import dataclasses
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ..errors import ConfigError
from ..utils.checks import suggest
from ..utils.files import atomic_write, resource_folder
from .former_names import upgrade

__all__ = [
    "PLACES",
    "apply_overrides",
    "check_kind",
    "find_config",
    "get_config",
    "load",
    "parse",
    "save",
    "target_name",
    "to_plain",
    "to_yaml",
]

#: Groups of options (folders of lazy_configs/common) and their places in the tree.
PLACES = {
    "model": "model",
    "backbone": "model.backbone.bottom_up",
    "neck": "model.backbone",
    "roi_heads": "model.roi_heads",
    "data": "data",
    "augmentation": "dataloader.train.mapper.augmentations",
    "optimizer": "optimizer",
    "lr_multiplier": "lr_multiplier",
    "train": "train",
}


def get_config(name: str) -> DictConfig:
    """Load one of d2timm's own configs, wherever it is installed.

    Args:
        name: path below ``lazy_configs``, such as ``mask_rcnn_timm.py``.
    """
    root = resource_folder("lazy_configs")
    if not (root / name).is_file():
        known = [str(path.relative_to(root)) for path in root.rglob("*.py")]
        raise ConfigError(f"there is no config {name!r}: {suggest(name, known)}")
    return load(root / name)


def find_config(file: str) -> Path:
    """The file that ``--config-file`` names: the user's, or else d2timm's own of that name.

    Args:
        file: a path, or the name of a recipe, with or without ``lazy_configs/`` in front.
    """
    own = resource_folder("lazy_configs")
    places = (Path(file), own / file, own.parent / file)
    return next((place for place in places if place.is_file()), Path(file))


def load(path: str | Path) -> DictConfig:
    """Load a LazyConfig Python file or a saved YAML.

    Raises:
        ConfigError: no such file, or one that cannot be read as a config.
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"--config-file {path}: no such file")
    if path.suffix in (".yaml", ".yml"):
        return parse(path.read_text(), f"--config-file {path}")
    from detectron2.config import LazyConfig  # brings torch: seconds that a saved YAML need not wait for

    original = builtins.__import__
    try:
        cfg: DictConfig = LazyConfig.load(str(path))
    except (SyntaxError, ImportError, ValueError) as error:
        raise ConfigError(f"--config-file {path}: {error}") from error
    finally:
        builtins.__import__ = original  # which LazyConfig leaves patched when a file raises
    for group, place in PLACES.items():
        if group != place and "model" in cfg:
            cfg.pop(group, None)  # a name that the recipe used in building the tree, not part of it
    return cfg


def parse(text: str, told: str) -> DictConfig:
    """The config that a saved YAML holds.

    Args:
        text: the YAML.
        told: how it is called in messages.

    Raises:
        ConfigError: it is none.
    """
    try:
        tree = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.YAMLError as error:
        raise ConfigError(f"{told}: {' '.join(str(error).split())}") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"{told}: it holds no config")
    try:
        cfg: DictConfig = OmegaConf.create(upgrade(tree), flags={"allow_objects": True})
    except OmegaConfBaseException as error:
        raise ConfigError(f"{told}: {str(error).splitlines()[0]}") from None
    return cfg


def to_yaml(cfg: DictConfig) -> str:
    """A config as the YAML that ``parse`` reads."""
    text: str = yaml.safe_dump(to_plain(cfg), sort_keys=False, allow_unicode=True)
    return text


def apply_overrides(cfg: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """Apply command-line overrides, in place, in Hydra's grammar.

    Args:
        cfg: the tree.
        overrides: ``key=value``, ``+key=value``, ``++key=value`` or ``~key``.

    Raises:
        ConfigError: a key that is not there, a value of the wrong kind, or no override at all.
    """
    try:
        parsed = OverridesParser.create().parse_overrides(list(overrides))
    except HydraException as error:
        raise ConfigError(f"an override is not key=value: {str(error).splitlines()[0]}") from None
    for override in parsed:
        _apply(cfg, override)
    return cfg


def _apply(cfg: DictConfig, override: Override) -> None:
    key, told = override.key_or_group, str(override.input_line)
    if override.is_sweep_override():
        raise ConfigError(f"{told}: several values are a sweep, which scripts/hydra_train.py -m runs")
    if override.package is not None:
        raise ConfigError(f"{told}: a value is changed by key=value, without @")
    value = override.value()
    if not (override.is_add() or override.is_force_add()):
        _check_key(cfg, key, told, "" if override.is_delete() else f" (+{told} adds it)")
        check_kind(cfg, key, value, told)
    try:
        if override.is_delete():
            owner, _, name = key.rpartition(".")
            node = OmegaConf.select(cfg, owner) if owner else cfg
            del node[int(name) if OmegaConf.is_list(node) else name]
        else:
            OmegaConf.update(cfg, key, value, merge=not isinstance(value, (dict, list)), force_add=True)
    except (OmegaConfBaseException, TypeError, KeyError, ValueError) as error:
        raise ConfigError(f"{told}: {str(error).splitlines()[0]}") from None


def check_kind(cfg: DictConfig, key: str, value: Any, told: str) -> None:
    """Raise ConfigError if a text is to replace a number.

    Args:
        cfg: the tree as it is.
        key: path with dots.
        value: what is to be there.
        told: the override.
    """
    try:
        old = OmegaConf.select(cfg, key)
    except OmegaConfBaseException:
        return  # it follows from something that is not chosen yet
    if isinstance(old, (int, float)) and isinstance(value, str) and "${" not in value:
        kind = "true or false" if isinstance(old, bool) else f"a number, such as {old}"
        raise ConfigError(f"{told}: {key} is {kind}")


def _check_key(cfg: DictConfig, key: str, told: str, hint: str) -> None:
    """Raise ConfigError with near matches unless the key is there."""
    node: Any = OmegaConf.to_container(cfg, resolve=False)
    path = ""
    for part in key.split("."):
        if isinstance(node, list):
            node = dict(zip(map(str, range(len(node))), node, strict=True))
        if not isinstance(node, Mapping):
            raise ConfigError(f"{told}: {path} is {node!r} and has no keys; change it as a whole")
        if part not in node:
            inside = f"{path} has no key {part!r}" if path else f"there is no key {part!r}"
            raise ConfigError(f"{told}: {inside}; {suggest(part, map(str, node))}{hint}")
        node = node[part]
        path = f"{path}.{part}" if path else part


def to_plain(node: Any) -> Any:
    """A config as dicts, lists, texts and numbers only; interpolations stay as they are written."""
    if OmegaConf.is_config(node):
        node = OmegaConf.to_container(node, resolve=False)
    if isinstance(node, Mapping):
        return {str(key): to_plain(value) for key, value in node.items()}
    if isinstance(node, (list, tuple)):
        return [to_plain(value) for value in node]
    if dataclasses.is_dataclass(node) and not isinstance(node, type):
        fields = {f.name: to_plain(getattr(node, f.name)) for f in dataclasses.fields(node)}
        return {"_target_": to_plain(type(node)), **fields}
    if isinstance(node, type) or callable(node):
        if not hasattr(node, "__qualname__") or "<" in node.__qualname__:
            raise ConfigError(f"a config cannot hold {node!r}: name a function of a module instead")
        return target_name(node)
    if node is None or isinstance(node, (str, int, float)):
        return node
    raise ConfigError(f"a config cannot hold {node!r}: use texts, numbers, lists and _target_ only")


def target_name(target: Any) -> str:
    """The dotted name of a ``_target_``: of a class or function the shortest one that can be imported."""
    if isinstance(target, str):
        return target
    module, name = target.__module__, target.__qualname__
    parts = module.split(".")
    for length in range(2, len(parts)):
        package = import_module(".".join(parts[:length]))
        if getattr(package, name, None) is target:
            return f"{package.__name__}.{name}"
    return f"{module}.{name}"


def save(cfg: DictConfig, path: Path) -> None:
    """Write a config as YAML, whole or not at all."""
    text = to_yaml(cfg)
    with atomic_write(path) as partial:
        partial.write_text(text)
