"""Trees of dictionaries and lists, such as configs, as flat mappings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["flatten"]


def flatten(tree: Mapping[str, Any], lists: bool = False) -> dict[str, Any]:
    """Dotted key -> value of each leaf: ``{"a": {"b": 1}}`` is ``{"a.b": 1}``.

    Args:
        tree: nested mappings.
        lists: whether lists are nodes as well, with their indices as keys; otherwise they are leaves.
            Empty nodes are leaves.
    """
    return dict(_leaves(tree, lists, ""))


def _leaves(node: Any, lists: bool, path: str) -> Iterator[tuple[str, Any]]:
    entries: Any = ()
    if isinstance(node, Mapping):
        entries = node.items()
    elif lists and isinstance(node, list):
        entries = enumerate(node)
    if not entries and path:
        yield path, node
    for key, value in entries:
        yield from _leaves(value, lists, f"{path}.{key}" if path else str(key))
