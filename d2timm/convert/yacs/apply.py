"""Apply the table of rules: what differs from our recipe is to be written."""

from __future__ import annotations

from typing import Any

from detectron2.config import instantiate
from omegaconf import DictConfig, OmegaConf

from ...errors import ConfigError
from .account import Account
from .rule import LEAVE, Rule
from .rules import RULES

__all__ = ["apply_rules", "equal", "value_at"]

FOLLOWS = "it follows from the rest here"


def apply_rules(account: Account, tree: DictConfig) -> dict[str, Any]:
    """Values of ours that differ from those of a recipe, and what has become of the old keys.

    Args:
        account: of the config.
        tree: the recipe with its backbone.

    Returns:
        Key -> value.
    """
    old = account.old
    settled = {key for key in old.values if account.settled(key)}
    values: dict[str, Any] = {}
    for rule in RULES:
        keys, new = rule.old.split(), rule.new.format(data=tree.data.name)
        if not _has_place(tree, new, rule) or (settled - account.converted) & {*keys}:
            continue
        if rule.follows:
            if keys[0] not in settled:
                _follow(account, tree, keys[0], new)
            continue
        account.convert(*keys)
        try:
            value = rule.make(*(old[key] for key in keys))
        except (TypeError, ValueError, LookupError, ArithmeticError) as error:
            told = ", ".join(f"{key}={old[key]}" for key in keys)
            raise ConfigError(f"{old.name}: {told}: these make no {new} ({error})") from None
        if value is LEAVE:
            continue
        usual = rule.make(*(old.defaults[key] for key in keys)) if rule.add else value_at(tree, new)
        if rule.always or not equal(value, usual, rule.tolerance):
            values[new] = value
    return values


def value_at(tree: DictConfig, key: str) -> Any:
    """What stands at a key of a tree, or follows there; a part with arguments of its own is left as it is."""
    node = OmegaConf.select(tree, key)
    if not OmegaConf.is_config(node):
        return node
    if "_target_" in node and key not in ("optimizer.params",) and not key.endswith(".input_shape"):
        node = instantiate(node)
    return OmegaConf.to_container(node) if OmegaConf.is_config(node) else node


def equal(value: Any, other: Any, tolerance: float = 0.0) -> bool:
    """Whether two values mean the same: numbers up to rounding, sequences of any kind."""
    if isinstance(value, (list, tuple)) and isinstance(other, (list, tuple)):
        same_length = len(value) == len(other)
        return same_length and all(equal(*pair, tolerance) for pair in zip(value, other, strict=True))
    numbers = [isinstance(x, (int, float)) and not isinstance(x, bool) for x in (value, other)]
    if all(numbers):
        return bool(abs(value - other) <= max(tolerance, 1e-9 * abs(other)))
    return bool(value == other)


def _has_place(tree: DictConfig, key: str, rule: Rule) -> bool:
    owner, _, name = key.rpartition(".")
    node = OmegaConf.select(tree, owner)
    if OmegaConf.is_list(node):
        return int(name) < len(node)
    return OmegaConf.is_dict(node) and (rule.add or name in node)


def _follow(account: Account, tree: DictConfig, key: str, new: str) -> None:
    """Compare a value with what follows here."""
    try:
        follows = value_at(tree, new)
    except ConfigError:  # files of the user's own, which are not named yet
        account.needless[key] = FOLLOWS
        return
    if equal(account.old[key], follows) or key not in account.old.given:
        account.needless[key] = FOLLOWS
    else:
        account.lost[key] = f"{FOLLOWS}: {follows}"
