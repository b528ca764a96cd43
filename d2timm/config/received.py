"""Read configs that somebody else may have written: bounded in size, without tags, and without resolvers.

The classes and functions that they may name are checked where they are built, in ``d2timm.utils.targets``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import yaml
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import GrammarParseError, OmegaConfBaseException
from omegaconf.grammar.gen.OmegaConfGrammarParser import OmegaConfGrammarParser
from omegaconf.grammar_parser import parse as parse_value

from ..errors import ConfigError
from ..utils.targets import TRUST, trusted
from ..utils.text import one_line

__all__ = ["check_addresses", "check_resolvers", "read_yaml"]

DEEPEST = 100  # nested mappings and lists
LARGEST = 100_000  # values, those of aliases included; a recipe has about 1500
#: Resolvers that only look at the config itself; others read the environment, for example
RESOLVERS = ("oc.select",)
HUB_ID = "hf_hub_id"  # a key of timm whose value is an address without its prefix
#: An address from which timm, detectron2 or a tracking service would fetch, or to which it would send
ADDRESS = re.compile(r"\s*([a-z][a-z0-9+.-]*://|hf[-_]hub:)", re.IGNORECASE)


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


def check_addresses(cfg: DictConfig | ListConfig, label: str) -> None:
    """Check that no value of a config is an address in a network, which the user has not typed.

    Args:
        cfg: the config; interpolations count by their values.
        label: what errors call it.

    Raises:
        ConfigError: a value is one, and the user does not trust it.
    """
    keys: Iterable[Any] = cfg if isinstance(cfg, DictConfig) else range(len(cfg))
    for key in keys:
        if cfg._get_full_key(key) == "data":
            continue  # files of datasets are opened and never fetched, whatever their names are
        try:
            value = cfg[key]
        except OmegaConfBaseException:
            continue  # a missing value, which is an error where it is used
        if isinstance(value, (DictConfig, ListConfig)):
            if not OmegaConf.is_interpolation(cfg, key):
                check_addresses(value, label)
        elif isinstance(value, str):
            _check_address(f"hf-hub:{value}" if key == HUB_ID else value, cfg._get_full_key(key), label)


def _check_address(value: str, key: str, label: str) -> None:
    known = tuple(prefix for prefix in trusted() if ":" in prefix)
    if ADDRESS.match(value) and not value.strip().startswith(known):
        raise ConfigError(
            f"{label}: {key}={one_line(value)} is an address in a network; if you trust it, allow it: "
            f"--trust {one_line(value)}"
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
