"""Check configs that somebody else may have written: they call no resolvers and name no addresses.

The classes and functions that they may name are checked where they are built, in ``d2timm.utils.targets``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import GrammarParseError, OmegaConfBaseException
from omegaconf.grammar.gen.OmegaConfGrammarParser import OmegaConfGrammarParser
from omegaconf.grammar_parser import parse as parse_value

from ..errors import ConfigError
from ..utils.targets import TRUST, trusted
from ..utils.text import one_line

__all__ = ["check_addresses", "check_resolvers"]

#: Resolvers that only look at the config itself; others read the environment, for example
RESOLVERS = ("oc.select",)
HUB_ID = "hf_hub_id"  # a key of timm whose value is an address without its prefix
#: An address from which timm, detectron2 or a tracking service would fetch, or to which it would send
ADDRESS = re.compile(r"\s*([a-z][a-z0-9+.-]*://|hf[-_]hub:)", re.IGNORECASE)


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
