"""The layout of a project's checkpoints: the names of the weights, and the conventions that differ."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from torch import Tensor

from .target import Pixels, Target

__all__ = [
    "IMAGENET",
    "NOT_NEEDED",
    "Adapt",
    "Layout",
    "Rename",
    "Rule",
    "Values",
    "norms_of_all",
    "renamed",
    "same",
]

#: Computes the name in the target from the match of the name in the source; None: there is no such weight
Rename: TypeAlias = Callable[[re.Match[str], Target], str | None]
Rule: TypeAlias = tuple[str, Rename]
Values: TypeAlias = dict[str, Tensor]
#: Computes a weight of the target, and a note on the change ("": none), from its name there and the values
Adapt: TypeAlias = Callable[[str, Tensor, Target], tuple[Tensor, str]]

IMAGENET = Pixels("RGB", (123.675, 116.28, 103.53), (58.395, 57.12, 57.375))

#: Patterns of names that are not weights of the model in any layout -> why they are not needed
NOT_NEEDED = {
    r".*num_batches_tracked": "counter of a batch norm that the model does not have",
    r"pixel_(mean|std)": "the recipe has its own pixel statistics",
    r".*\.cell_anchors\.\d+": "anchors follow from the recipe",
    r"ema_.*": "averaged copy of the weights",
}


def same(match: re.Match[str], target: Target) -> str:
    """Return the name unchanged."""
    return match[0]


def renamed(template: str) -> Rename:
    r"""Return a function that expands a template, in which ``\1`` stands for a group of the pattern."""
    return lambda match, target: match.expand(template)


def norms_of_all(target: Target) -> list[str]:
    """Return a note if some outputs of the target have no norm, unlike those of the published models."""
    if all(target.norms):
        return []
    return ["the published models have a norm after each stage: give model.backbone.bottom_up.level_norm=all"]


@dataclass(frozen=True)
class Layout:
    """The layout of the checkpoints of one project.

    Attributes:
        name: name of the layout.
        signature: patterns of names; a file has the layout if each pattern matches one of its names.
        rules: pairs of a pattern that matches a full name, and the function that renames it; the first
            match counts.
        not_needed: patterns of names that have no counterpart in the target -> why.
        initialized: patterns of names in the target that these files lack -> how such a weight starts.
        adapt: patterns of names in the target -> how their values are changed.
        pixels: determines the image format of the model.
        prepare: brings the weights of a file to the names for which the rules are written.
        notes: returns notes on differences between the target and the published models.
    """

    name: str
    signature: tuple[str, ...]
    rules: tuple[Rule, ...]
    not_needed: Mapping[str, str] = field(default_factory=dict)
    initialized: Mapping[str, str] = field(default_factory=dict)
    adapt: Mapping[str, Adapt] = field(default_factory=dict)
    pixels: Callable[[Values], Pixels] = lambda weights: IMAGENET
    prepare: Callable[[Values], Values] = lambda weights: weights
    notes: Callable[[Target], list[str]] = lambda target: []

    def fits(self, weights: Values) -> bool:
        """Whether a file has this layout."""
        return all(any(re.fullmatch(p, name) for name in weights) for p in self.signature)

    def rename(self, name: str, target: Target) -> str | None:
        """The name of a weight in the target, by the first rule that matches; None if no rule does."""
        for pattern, rename in self.rules:
            if match := re.fullmatch(pattern, name):
                return rename(match, target)
        return None

    def why_not_needed(self, name: str) -> str | None:
        """Why a weight without a counterpart in the target is not needed; None if it should have one."""
        return _first({**self.not_needed, **NOT_NEEDED}, name)

    def why_initialized(self, name: str) -> str | None:
        """How a weight of the target that these files lack starts; None if they should have it."""
        return _first(self.initialized, name)


def _first(reasons: Mapping[str, str], name: str) -> str | None:
    return next((reason for pattern, reason in reasons.items() if re.fullmatch(pattern, name)), None)
