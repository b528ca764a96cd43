"""Apply the rules to an old config, and account for each key that it sets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ...config.build import instantiate
from ...errors import ConfigError
from .read import OldConfig
from .rules import CARRIED, LEAVE, NOT_CONVERTED, NOT_NEEDED, RULES, TOGETHER, Rule

__all__ = ["Account", "apply_rules", "differs"]


class Account:
    """What becomes of each key of an old config.

    Attributes:
        old: the config.
        keys: keys to convert: those that are set, and the defaults that count as well.
        converted: keys that the new file expresses, or that mean what the recipe does anyway.
        written: keys whose values the new file contains.
        not_needed: key -> why it is not needed.
        not_converted: key -> why it is not converted, and what replaces it.
        notes: key -> what a user should know about its conversion.
    """

    def __init__(self, old: OldConfig) -> None:
        self.old = old
        self.keys = old.given.union(CARRIED, *(group for group in TOGETHER if group & old.given))
        self.converted: set[str] = set()
        self.written: set[str] = set()
        self.not_needed: dict[str, str] = {}
        self.not_converted: dict[str, str] = {}
        self.notes: dict[str, str] = dict.fromkeys(old.repeated, "it appears twice; the last one counts")

    def has(self, key: str) -> bool:
        """Whether it is known what becomes of a key."""
        return key in self.converted or key in self.not_needed or key in self.not_converted

    def convert(self, *keys: str, written: bool = False) -> None:
        """Record that keys are converted, and whether their values are in the new file."""
        self.converted.update(keys)
        self.written.update(keys if written else ())

    def note(self, key: str, text: str) -> None:
        """Add a note on the conversion of a key."""
        self.notes[key] = f"{self.notes[key]}; {text}" if key in self.notes else text

    def finish(self) -> None:
        """Give a reason for each remaining key that is set."""
        with_rule = {key for rule in RULES for key in rule.old}
        for key in filter(self.old.given.__contains__, self.old.values):
            if self.has(key):
                continue
            if reason := _find(key, NOT_NEEDED):
                self.not_needed[key] = reason
            elif key in with_rule:
                self.not_needed[key] = "the new detector does not have that part"
            elif self.old[key] in (None, "", self.old.defaults[key]):
                self.not_needed[key] = "it is empty or has its default value"
            else:
                self.not_converted[key] = _find(key, NOT_CONVERTED) or "d2timm has no such setting"

    def sections(self) -> Iterator[tuple[str, dict[str, str]]]:
        """Heading, and ``KEY=value`` -> reason or ""; keys that are converted without a note are left out."""
        given = self.old.given
        defaults = [key for key in self.old.values if key in self.written & self.keys - given]
        needless = {key: why for key, why in self.not_needed.items() if key in given}
        yield "not converted", self._with_values(self.not_converted)
        yield "notes", self._with_values(self.notes)
        yield (
            "defaults of the old format, which it does not set",
            self._with_values(dict.fromkeys(defaults, "")),
        )
        yield "not needed", self._with_values(needless)

    def report(self) -> str:
        """What was converted and what was not, for the screen."""
        lines = [f"converted: {len(self.converted & self.old.given - {*self.not_converted})} keys"]
        for heading, reasons in self.sections():
            lines += [f"{heading}:"] if reasons else []
            for key, reason in reasons.items():
                lines += [f"  {key}", *([f"      {reason}"] if reason else [])]
        return "\n".join(lines)

    def _with_values(self, reasons: Mapping[str, str]) -> dict[str, str]:
        return {self._with_value(key): why for key, why in reasons.items()}

    def _with_value(self, key: str) -> str:
        if key not in self.old.values:  # a section that appears twice
            return key
        value = str(self.old[key])
        return f"{key}={value if len(value) <= 60 else f'{value[:57]}...'}"


def apply_rules(account: Account, tree: DictConfig) -> dict[str, Any]:
    """Translate the keys of an old config by the rules, and record what becomes of them.

    Args:
        account: the account of the config. Rules for keys that are not needed are skipped.
        tree: the recipe with its dataset and backbone.

    Returns:
        New key -> value. Values that the recipe contains literally are left out.

    Raises:
        ConfigError: a rule cannot translate a value.
    """
    old, skipped = account.old, frozenset(account.not_needed)
    values: dict[str, Any] = {}
    for rule in RULES:
        new = rule.new.format(data=tree.data.name)
        if not account.keys.intersection(rule.old) or not _has_place(tree, new, rule):
            continue
        if rule.derived:
            _compare_derived(account, tree, rule.old[0], new)
        elif not skipped.intersection(rule.old):
            try:
                value = rule.translate(*(old[key] for key in rule.old))
            except (TypeError, ValueError, LookupError, ArithmeticError) as error:
                assignments = ", ".join(f"{key}={old[key]}" for key in rule.old)
                raise ConfigError(f"{old.name}: {assignments}: no value for {new} ({error})") from None
            write = value is not LEAVE and differs(tree, new, value)
            account.convert(*rule.old, written=write)
            if write:
                values[new] = value
    return values


def differs(tree: DictConfig, key: str, value: Any) -> bool:
    """Whether a value has to be written; in ``train``, the recipe's may depend on the machine."""
    return key.startswith("train.") or bool(_value_at(tree, key) != value)


def _value_at(tree: DictConfig, key: str) -> Any:
    """The value at a key, computed if it is a node; None if that takes the model or the user's files."""
    node = OmegaConf.select(tree, key)
    try:
        return instantiate(node) if OmegaConf.is_dict(node) else node
    except (ConfigError, TypeError):
        return None


def _has_place(tree: DictConfig, key: str, rule: Rule) -> bool:
    owner, _, name = key.rpartition(".")
    node = OmegaConf.select(tree, owner)
    if OmegaConf.is_list(node):
        return int(name) < len(node)
    return OmegaConf.is_dict(node) and (rule.optional or name in node)


def _compare_derived(account: Account, tree: DictConfig, key: str, new: str) -> None:
    """Compare an old value with the one that d2timm derives."""
    derived = _value_at(tree, new)
    if account.has(key):
        return
    if derived in (None, account.old[key]):
        account.not_needed[key] = "d2timm derives it from the data or the neck"
    else:
        account.not_converted[key] = f"d2timm derives {derived} from the data or the neck"


def _find(key: str, reasons: Mapping[str, str]) -> str | None:
    return next((why for pattern, why in reasons.items() if fnmatchcase(key, pattern)), None)
