"""Overrides of a config on a command line.

They are stricter than detectron2's: a key that does not exist is an error (``+key=value`` adds one, ``~key``
deletes one), and so is a string in place of a number. Paths are taken as typed, see ``paths``.
"""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ..errors import ConfigError
from ..utils.checks import suggest
from ..utils.text import LIMIT, first_line, one_line
from .paths import quote, quote_paths

__all__ = ["apply_overrides", "check_type", "parse_override"]

#: Most brackets within each other; OmegaConf calls itself several times for each
DEEPEST = 30
#: A character that a value may have without quotes, wherever it stands
PLAIN = re.compile(r"[\w.\-/+$%*@?|\\: \t]", re.ASCII)


def apply_overrides(cfg: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """Apply command-line overrides in Hydra's grammar, but with paths as typed, in place.

    Args:
        cfg: the tree.
        overrides: ``key=value``, ``+key=value``, ``++key=value`` or ``~key``.

    Returns:
        The tree.

    Raises:
        ConfigError: a key does not exist, a value has the wrong type, or a string is not an override.
    """
    for override in [parse_override(quote_paths(text)) for text in overrides]:
        _apply(cfg, override)
    return cfg


def parse_override(text: str) -> Override:
    """Parse an override in Hydra's grammar.

    Raises:
        ConfigError: it is not one; the message has the character that needs quotes, and the quoted override.
    """
    if _nesting(text) > DEEPEST:
        raise ConfigError(f"{one_line(text)}: more than {DEEPEST} brackets within each other")
    try:
        return OverridesParser.create().parse_override(text)
    except HydraException as error:
        raise ConfigError(_explain(text, error)) from None
    except ValueError as error:  # a number of too many digits
        raise ConfigError(f"{one_line(text)}: {one_line(error)}") from None


def _nesting(text: str) -> int:
    """The highest number of brackets that are open at the same time."""
    return max(itertools.accumulate((c in "[{(") - (c in "]})") for c in text), default=0)


def _explain(text: str, error: HydraException) -> str:
    key, mark, value = text.partition("=")
    quoted = f"{key}={quote(value)}"
    try:
        OverridesParser.create().parse_override(quoted if mark else "")
    except HydraException:  # quotes do not help, because the mistake is in the key
        return f"an override is not key=value: {one_line(text)}: {first_line(error)}"
    odd = next((character for character in value if not PLAIN.match(character)), None)
    reason = f"{odd!r} is not allowed here without quotes" if odd else first_line(error)
    hint = shlex.quote(quoted).replace("\n", " ")
    fix = f"; for a text, write {hint}" if len(hint) <= LIMIT else ""
    return f"{one_line(text)}: {reason}{fix}"


def _apply(cfg: DictConfig, override: Override) -> None:
    key, text = override.key_or_group, one_line(override.input_line)
    if override.is_sweep_override():
        raise ConfigError(f"{text}: several values are a sweep; run it with d2timm sweep -m")
    if override.package is not None:
        raise ConfigError(f"{text}: write key=value without @")
    value = override.value()
    if not (override.is_add() or override.is_force_add()):
        _check_key(cfg, key, text, "" if override.is_delete() else f" (+{text} adds it)")
        check_type(cfg, key, value, text)
    try:
        if override.is_delete():
            owner, _, name = key.rpartition(".")
            node = OmegaConf.select(cfg, owner) if owner else cfg
            del node[int(name) if OmegaConf.is_list(node) else name]
        else:
            OmegaConf.update(cfg, key, value, merge=not isinstance(value, (dict, list)), force_add=True)
    except (OmegaConfBaseException, TypeError, KeyError, ValueError) as error:
        raise ConfigError(f"{text}: {first_line(error)}") from None


def check_type(cfg: DictConfig, key: str, value: Any, override: str) -> None:
    """Raise ConfigError if an override would replace a number or a boolean by a string.

    Args:
        cfg: the tree before the override.
        key: dotted key.
        value: the new value.
        override: the override as the user typed it.
    """
    try:
        old = OmegaConf.select(cfg, key)
    except OmegaConfBaseException:
        return  # it depends on a value that is not set yet
    if isinstance(old, (int, float)) and isinstance(value, str) and "${" not in value:
        expected = "true or false" if isinstance(old, bool) else f"a number, such as {old}"
        raise ConfigError(f"{override}: {key} is {expected}")


def _check_key(cfg: DictConfig, key: str, override: str, hint: str) -> None:
    """Raise ConfigError with similar keys unless the key exists."""
    node: Any = OmegaConf.to_container(cfg, resolve=False)
    path = ""
    for part in key.split("."):
        if isinstance(node, list):
            node = dict(zip(map(str, range(len(node))), node, strict=True))
        if not isinstance(node, Mapping):
            raise ConfigError(f"{override}: {path} is {node!r:.99} and has no keys; override {path} itself")
        if part not in node:
            missing = f"{path} has no key {part!r:.99}" if path else f"there is no key {part!r:.99}"
            raise ConfigError(f"{override}: {missing}; {suggest(part, map(str, node))}{hint}")
        node = node[part]
        path = f"{path}.{part}" if path else part
