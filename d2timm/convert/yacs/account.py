"""Apply the rules to an old config, and account for each key that it sets."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ...config.build import instantiate
from ...errors import ConfigError
from .read import OldConfig
from .rules import CONFIG, LEAVE, RULES, SIZES, SOLVER, Rule

__all__ = ["CARRIED", "NOT_CONVERTED", "NOT_NEEDED", "TOGETHER", "Account", "apply_rules", "set_value"]

#: Defaults of the old format that are converted even where no file sets them: with the values of the recipe
#: instead, the detector would silently be another one.
CARRIED = frozenset(
    {
        "MODEL.BACKBONE.FREEZE_AT",
        f"{CONFIG}.PRETRAINED",
        "INPUT.FIXED_INPUT_SIZE",
        "INPUT.FORMAT",
        "MODEL.PIXEL_MEAN",
        "MODEL.PIXEL_STD",
        "MODEL.ANCHOR_GENERATOR.SIZES",
        "MODEL.RPN.PRE_NMS_TOPK_TEST",
        "MODEL.RPN.POST_NMS_TOPK_TEST",
        "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION",
        "MODEL.ROI_BOX_HEAD.NUM_FC",
        "MODEL.ROI_MASK_HEAD.NUM_CONV",
    }
)
#: Keys that depend on each other: if a file sets one of a group, the defaults of the others are converted too
TOGETHER = tuple(frozenset(key for rule in group for key in rule.old) for group in (SIZES, SOLVER))

#: Patterns of keys that are not needed -> why
NOT_NEEDED = {
    "VERSION": "it is the version of the old format",
    "GLOBAL.HACK": "it has no effect",
    f"{CONFIG}.CHANNELS": "the model determines its channels",
    f"{CONFIG}.REMOVE_LAYERS": "layers that no feature needs are not created",
    "MODEL.RESNETS.*": "only detectron2's own ResNet uses it",
    "MODEL.ANCHOR_GENERATOR.ANGLES": "only rotated boxes use it",
    "MODEL.PANOPTIC_FPN.COMBINE.ENABLED": "detectron2 ignores it as well",
}
#: Patterns of keys that are not converted -> why, or what to do instead
NOT_CONVERTED = {
    f"{CONFIG}.REPLACE_LAYERS": "timm's own layers are used; timm_kwargs takes the options of a model",
    "MODEL.WEIGHTS": "the parameters have other names in d2timm",
    "INPUT.CROP.*": "put a RandomCrop into dataloader.train.mapper.augmentations",
    "SOLVER.REFERENCE_WORLD_SIZE": "train.reference_batch_size scales the learning rate with the batch",
    "TEST.AUG.MAX_SIZE": "max_size is scaled in the same way as the short side",
    "DATALOADER.FILTER_EMPTY_ANNOTATIONS": "images without objects are left out",
    "DATALOADER.ASPECT_RATIO_GROUPING": "a batch does not mix wide and tall images",
}


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
                self.not_needed[key] = "the new config has no such part"
            elif self.old[key] in (None, "", self.old.defaults[key]):
                self.not_needed[key] = "it is empty or has its default value"
            else:
                self.not_converted[key] = _find(key, NOT_CONVERTED) or "d2timm has no such setting"

    def sections(self) -> dict[str, dict[str, str]]:
        """Heading -> key -> reason or ""; keys that are converted without a note are left out."""
        given = self.old.given
        carried = [key for key in self.old.values if key in self.written & self.keys - given]
        return {
            "not converted": self.not_converted,
            "notes": self.notes,
            "defaults of the old format, which it does not set": dict.fromkeys(carried, ""),
            "not needed": {key: why for key, why in self.not_needed.items() if key in given},
        }

    def describe(self, key: str) -> str:
        """``KEY=value``, shortened; the name alone for a section."""
        value = str(self.old.values.get(key, ""))
        short = value if len(value) <= 60 else f"{value[:57]}..."
        return f"{key}={short}" if key in self.old.values else key

    def report(self) -> str:
        """What was converted and what was not, for the screen."""
        lines = [f"converted: {len(self.converted & self.old.given - {*self.not_converted})} keys"]
        for heading, reasons in self.sections().items():
            lines += [f"{heading}:"] if reasons else []
            for key, reason in reasons.items():
                lines += [f"  {self.describe(key)}", *([f"      {reason}"] if reason else [])]
        return "\n".join(lines)


def apply_rules(account: Account, tree: DictConfig) -> dict[str, Any]:
    """Translate the keys of an old config by the rules, and record what becomes of them.

    Args:
        account: the account of the config. Rules for keys that are not needed are skipped.
        tree: the recipe with its dataset and backbone; the values are set in it.

    Returns:
        New key -> value, without values that the recipe has already.

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
            written = value is not LEAVE and set_value(tree, values, new, value)
            account.convert(*rule.old, written=written)
    return values


def set_value(tree: DictConfig, values: dict[str, Any], key: str, value: Any) -> bool:
    """Set a value in the tree and in ``values``; return False if the tree contains it already."""
    if not key.startswith("train.") and _value_at(tree, key) == value:
        return False  # the recipe's ``train`` depends on the machine
    OmegaConf.update(tree, key, value, merge=False)
    values[key] = value
    return True


def _value_at(tree: DictConfig, key: str) -> Any:
    """The value at a key, computed if it is a node; None if that takes a model or the user's files."""
    node = OmegaConf.select(tree, key)
    if not OmegaConf.is_dict(node):
        return node
    try:
        return None if key == "optimizer.params" else instantiate(node)
    except ConfigError:
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
