"""Hydra's groups: the nodes of ``lazy_configs/common``, each with its place in the tree, and timm's names."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins

from ..config.groups import Nodes
from ..config.lazy import PLACES

__all__ = ["replace_launchers", "store_backbones", "store_groups"]

BACKBONE = "backbone"
ANY = "timm"  # the option of the group that all names of models are variants of


class _Shared(dict[str, Any]):
    """A group that is not copied when Hydra copies its whole store, as it does for each job.

    Nothing changes in it: an option is copied when it is used.
    """

    def __deepcopy__(self, memo: dict[int, Any]) -> _Shared:
        return self


def store_groups(nodes: Nodes) -> None:
    """Put all options into Hydra's ConfigStore."""
    store = ConfigStore.instance()
    for group, options in nodes.options.items():
        for option, places in options.items():
            tree: dict[str, Any] = {}
            for place, node in places.items():
                _put(tree, place, node)
            store.store(group=group, name=option, node=tree, package="_global_", provider="d2timm")
    store.repo[BACKBONE] = _Shared(store.repo[BACKBONE])
    store_backbones(nodes.names)


def store_backbones(names: Iterable[str]) -> None:
    """Make options of the group ``backbone`` of names of timm models."""
    store = ConfigStore.instance()
    for name in names:
        store.store(
            group=BACKBONE,
            name=name,
            node={"defaults": [ANY, "_self_"], "model_name": name},
            package=PLACES[BACKBONE],
            provider="d2timm",
        )


def replace_launchers(folder: Path) -> None:
    """Let files of launchers and sweepers stand for those of the same names that their packages bring.

    Hydra would merge the two, and warn that it will not do so for ever.
    """
    Plugins.instance()  # the packages store theirs
    groups = ConfigStore.instance().repo["hydra"]
    for file in folder.glob("*/*.yaml"):
        groups.get(file.parent.name, {}).pop(file.name, None)


def _put(tree: dict[str, Any], place: str, node: Any) -> None:
    """Put a node into a tree of dicts, at a path with dots."""
    *path, last = place.split(".")
    for key in path:
        tree = tree.setdefault(key, {})
    tree[last] = node
