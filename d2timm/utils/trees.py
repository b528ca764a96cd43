"""Nested dictionaries and lists, such as configs, as flat mappings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["flatten"]


def flatten(tree: Mapping[str, Any], lists: bool = False) -> dict[str, Any]:
    """Return a mapping from dotted keys to leaves: ``{"a": {"b": 1}}`` becomes ``{"a.b": 1}``.

    Args:
        tree: nested mappings.
        lists: whether lists are nodes too, with their indices as keys; otherwise they are leaves.
            Empty mappings, and empty lists, are leaves.
    """
    return dict(_leaves(tree, lists, ""))


def _leaves(node: Any, lists: bool, path: str) -> Iterator[tuple[str, Any]]:
    children: list[tuple[Any, Any]] = []
    if isinstance(node, Mapping):
        children = list(node.items())
    elif lists and isinstance(node, list):
        children = list(enumerate(node))
    if not children and path:
        yield path, node
    for key, child in children:
        yield from _leaves(child, lists, f"{path}.{key}" if path else str(key))
