"""Read configs that somebody else may have written: bounded in size, without tags, and without resolvers.

The classes and functions that they may name are checked where they are built, in ``d2timm.utils.targets``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import yaml
from omegaconf.errors import GrammarParseError
from omegaconf.grammar.gen.OmegaConfGrammarParser import OmegaConfGrammarParser
from omegaconf.grammar_parser import parse as parse_value

from ..errors import ConfigError
from ..utils.targets import TRUST, trusted
from ..utils.text import one_line

__all__ = ["check_resolvers", "read_yaml"]

DEEPEST = 100  # nested mappings and lists
LARGEST = 100_000  # values, those of aliases included; a recipe has about 1500
#: Resolvers that only look at the config itself; others read the environment, for example
RESOLVERS = ("oc.select",)


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


def check_resolvers(tree: Any, label: str) -> None:
    """Check that no value of a config calls a resolver that reads anything but the config.

    Args:
        tree: plain data.
        label: what errors call it.

    Raises:
        ConfigError: a value does, and the user does not trust the resolver.
    """
    for text in _texts(tree):
        for name in _resolvers(text):
            if name not in (*RESOLVERS, *trusted()):
                raise ConfigError(
                    f"{label}: {one_line(text)!r} calls the resolver {name}, which a config may not: write "
                    f"the value instead, or allow it: {TRUST}={name}"
                )


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


def _texts(tree: Any) -> Iterator[str]:
    """All texts of a tree with interpolations."""
    if isinstance(tree, Mapping):
        tree = [*tree.keys(), *tree.values()]
    if isinstance(tree, list):
        for value in tree:
            yield from _texts(value)
    elif isinstance(tree, str) and "${" in tree:
        yield tree


def _resolvers(text: str) -> Iterator[str]:
    """The names of the resolvers that a text calls, also inside of each other."""
    try:
        contexts: list[Any] = [parse_value(text)]
    except GrammarParseError:
        return  # which OmegaConf reports
    while contexts:
        context = contexts.pop()
        if isinstance(context, OmegaConfGrammarParser.InterpolationResolverContext):
            name: Any = context
            yield str(name.resolverName().getText())
        contexts += getattr(context, "children", None) or []  # a leaf has none
