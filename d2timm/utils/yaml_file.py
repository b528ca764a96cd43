"""YAML that somebody else may have written: bounded in size and without tags, so that nothing in it runs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml

from ..errors import ConfigError
from .text import one_line

__all__ = ["read_yaml"]

DEEPEST = 100  # nested mappings and lists
LARGEST = 100_000  # values, those of aliases included; a recipe has about 1500


def read_yaml(text: str, label: str) -> Any:
    """Parse YAML into plain data.

    Args:
        text: the YAML.
        label: what errors call it, such as its file name.

    Raises:
        ConfigError: it is not valid, has tags, or is nested or repeated so much that it is no config.
    """
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        _check_extent(yaml.parse(text, loader), label)  # loaders call themselves for each level
        opened = loader(text)
        try:
            node = opened.get_single_node()
            if node is None:
                return None
            if _size(node, {}) > LARGEST:
                raise ConfigError(f"{label}: not a config: its aliases repeat more than {LARGEST} values")
            return opened.construct_document(node)
        finally:
            opened.dispose()
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that does not exist
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{label}: {one_line(error)}") from None


def _check_extent(events: Iterator[yaml.Event], label: str) -> None:
    """Raise ConfigError if the text has more levels or values than a config."""
    depth = 0
    for count, event in enumerate(events):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise ConfigError(f"{label}: not a config: it is nested more than {DEEPEST} times")
        if count > LARGEST:
            raise ConfigError(f"{label}: not a config: it has more than {LARGEST} values")


def _size(node: yaml.Node, known: dict[int, float]) -> float:
    """The number of values of a node after its aliases are replaced; infinite if it contains itself."""
    if id(node) not in known:
        known[id(node)] = float("inf")
        pairs = node.value if isinstance(node, yaml.MappingNode) else []
        items = (
            node.value if isinstance(node, yaml.SequenceNode) else [part for pair in pairs for part in pair]
        )
        known[id(node)] = 1 + sum(_size(item, known) for item in items)
    return known[id(node)]
