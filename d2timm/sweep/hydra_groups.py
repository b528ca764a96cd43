"""Hydra's config groups: the options in ``lazy_configs/common`` and the names of all timm models."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins

from ..config.groups import Nodes
from ..config.lazy import PLACES

__all__ = ["ANY", "BACKBONE", "replace_launchers", "store_backbones", "store_groups"]

BACKBONE = "backbone"
ANY = "timm"  # the option of the group backbone that all names of models are variants of


class _Shared(dict[str, Any]):
    """A group that Hydra does not copy together with its whole store, which it copies for each job.

    The group never changes; Hydra copies an option before using it.
    """

    def __deepcopy__(self, memo: dict[int, Any]) -> _Shared:
        return self


def store_groups(nodes: Nodes) -> None:
    """Add all options to Hydra's ConfigStore."""
    store = ConfigStore.instance()
    for group, options in nodes.options.items():
        for option, places in options.items():
            tree: dict[str, Any] = {}
            for place, node in places.items():
                _insert(tree, place, node)
            store.store(group=group, name=option, node=tree, package="_global_", provider="d2timm")
        store.repo[group] = _Shared(store.repo[group])
    store_backbones(nodes.names)


def store_backbones(names: Iterable[str]) -> None:
    """Add names of timm models to the options of the group ``backbone``."""
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
    """Remove the launchers and sweepers of plugin packages that have the name of one of ours.

    Hydra would merge the two, with a warning that this is deprecated.

    Args:
        folder: holds our files, ``launcher/NAME.yaml`` and ``sweeper/NAME.yaml``.
    """
    Plugins.instance()  # loads the packages, which store their options
    groups = ConfigStore.instance().repo["hydra"]
    for file in folder.glob("*/*.yaml"):
        groups.get(file.parent.name, {}).pop(file.name, None)


def _insert(tree: dict[str, Any], place: str, node: Any) -> None:
    """Insert a node into nested dictionaries at a dotted key."""
    *path, last = place.split(".")
    for key in path:
        tree = tree.setdefault(key, {})
    tree[last] = node
