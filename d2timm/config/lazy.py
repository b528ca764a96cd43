"""Load and save config files.

A config is a tree of detectron2's LazyConfig. It is saved as plain YAML, which a safe loader reads.
"""

from __future__ import annotations

import builtins
import dataclasses
import os
import pkgutil
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ..errors import ConfigError
from ..utils.checks import suggest
from ..utils.files import atomic_write, resource_folder
from ..utils.targets import resolve_target
from ..utils.text import first_line, one_line
from ..utils.yaml_file import read_yaml
from .former_names import upgrade
from .received import check_addresses, check_resolvers

__all__ = [
    "PLACES",
    "check_parts",
    "find_config",
    "get_config",
    "load",
    "parse",
    "save",
    "target_name",
    "to_plain",
    "to_yaml",
]

#: Group of options, a folder of lazy_configs/common -> its place in the tree
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
    """Load a config of d2timm, from the repository or from an installed wheel.

    Args:
        name: path below ``lazy_configs``, such as ``mask_rcnn_timm.py``.

    Raises:
        ConfigError: there is no such config.
    """
    root = resource_folder("lazy_configs")
    if not (root / name).is_file():
        known = [str(path.relative_to(root)) for path in root.rglob("*.py")]
        raise ConfigError(f"there is no config {name!r}: {suggest(name, known)}")
    return load(root / name)


def find_config(file: str) -> Path:
    """Find the file that ``--config-file`` names: the user's, or else a recipe of d2timm.

    Args:
        file: a path, in which a leading ``~`` is expanded, or the name of a recipe, with or without
            ``lazy_configs/`` in front.

    Returns:
        The file; the expanded ``file`` itself if there is neither.
    """
    folder = resource_folder("lazy_configs")
    own = Path(os.path.expanduser(file))  # of pathlib, it raises for names that begin with ~
    return next((path for path in (own, folder / file, folder.parent / file) if path.is_file()), own)


def load(path: str | Path) -> DictConfig:
    """Load a LazyConfig Python file or a saved YAML file.

    Raises:
        ConfigError: there is no such file, or it is not a config.
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"--config-file {path}: no such file")
    if path.suffix in (".yaml", ".yml"):
        try:
            return parse(path.read_bytes().decode("utf-8-sig"), f"--config-file {path}")
        except UnicodeDecodeError as error:
            raise ConfigError(f"--config-file {path}: not a config: {error}") from None
    from detectron2.config import LazyConfig  # takes seconds to import; a saved YAML does not need it

    original = builtins.__import__
    try:
        cfg: DictConfig = LazyConfig.load(str(path))
    except (SyntaxError, ImportError, ValueError) as error:
        raise ConfigError(f"--config-file {path}: {error}") from error
    finally:
        builtins.__import__ = original  # LazyConfig leaves it patched when a file raises
    for group, place in PLACES.items():
        if group != place and "model" in cfg:
            cfg.pop(group, None)  # a node that the recipe imports; the tree has it at its place
    _import_own(cfg)
    return cfg


def _import_own(node: Any) -> None:
    """Replace the names of classes that a saved config may not name by the classes.

    A Python file is code that the user runs, and so is what it names.
    """
    if OmegaConf.is_dict(node) and "_target_" in node and not OmegaConf.is_interpolation(node, "_target_"):
        name = node["_target_"]
        try:
            if isinstance(name, str):
                resolve_target(name)
        except ConfigError:
            with suppress(ImportError, AttributeError, ValueError):  # the builder reports a wrong name
                node["_target_"] = pkgutil.resolve_name(name)
    if OmegaConf.is_config(node):
        for key in range(len(node)) if OmegaConf.is_list(node) else node:
            if not OmegaConf.is_interpolation(node, key) and not OmegaConf.is_missing(node, key):
                _import_own(node[key])


def parse(text: str, label: str) -> DictConfig:
    """Parse a config that was saved as YAML; names of earlier versions are upgraded.

    Args:
        text: the YAML.
        label: what errors call it, such as its file name.

    Raises:
        ConfigError: the text is not a config.
    """
    tree = read_yaml(text, label)
    check_resolvers(tree, label)
    if not isinstance(tree, dict):
        raise ConfigError(f"{label}: not a config, which is a mapping of keys to values")
    try:
        cfg: DictConfig = OmegaConf.create(upgrade(tree), flags={"allow_objects": True})
    except OmegaConfBaseException as error:
        raise ConfigError(f"{label}: {first_line(error)}") from None
    check_addresses(cfg, label)
    return cfg


def check_parts(cfg: DictConfig, *keys: str, built: Sequence[str] = ()) -> None:
    """Check that a config has the parts without which it cannot be used.

    Args:
        cfg: the tree.
        keys: dotted keys of nodes, such as ``dataloader.test.mapper``.
        built: those of nodes that must have a ``_target_``.

    Raises:
        ConfigError: it lacks one.
    """
    for key in (*keys, *built):
        try:
            node = OmegaConf.select(cfg, key)
        except OmegaConfBaseException as error:
            raise ConfigError(f"the config is damaged: {key}: {one_line(error)}") from None
        if not isinstance(node, DictConfig):
            raise ConfigError(f"the config is damaged: {key}={one_line(node)} is not a node with keys")
        if key in built and "_target_" not in node:
            raise ConfigError(f"the config is damaged: {key} has no _target_")


def to_yaml(cfg: DictConfig) -> str:
    """Format a config as YAML, which ``parse`` reads."""
    text: str = yaml.dump(to_plain(cfg), Dumper=_Dumper, sort_keys=False, allow_unicode=True)
    return text


class _Dumper(yaml.SafeDumper):
    """Quotes texts with line breaks or control characters, some of which would otherwise become blanks."""


_Dumper.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar(
        "tag:yaml.org,2002:str", text, style=None if text.isprintable() else '"'
    ),
)


def to_plain(node: Any) -> Any:
    """Convert a config to dicts, lists, strings, numbers, booleans and None; interpolations stay unresolved.

    Classes and functions become dotted names, dataclass instances become nodes with a ``_target_``.

    Raises:
        ConfigError: a value is none of these.
    """
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
            raise ConfigError(f"a config cannot hold {node!r}: use a function of a module, which has a name")
        return target_name(node)
    if node is None or isinstance(node, (str, int, float)):
        return node
    raise ConfigError(f"a config cannot hold {node!r}: use strings, numbers, lists and _target_ nodes")


def target_name(target: Any) -> str:
    """The dotted name of a ``_target_``; for a class or function, the shortest that its packages export.

    Raises:
        ConfigError: it is neither a name nor a class or function.
    """
    if isinstance(target, str):
        return target
    if not callable(target) or not hasattr(target, "__qualname__"):
        raise ConfigError(f"_target_={one_line(target)} is not the name of a class or function")
    module, name = target.__module__, target.__qualname__
    parts = module.split(".")
    for length in range(2, len(parts)):  # a package of the distribution, not its top level
        package = ".".join(parts[:length])
        if getattr(sys.modules.get(package), name, None) is target:
            return f"{package}.{name}"
    return f"{module}.{name}"


def save(cfg: DictConfig, path: Path) -> None:
    """Write a config as YAML; the file is complete or absent."""
    text = to_yaml(cfg)
    with atomic_write(path) as partial:
        partial.write_text(text)
