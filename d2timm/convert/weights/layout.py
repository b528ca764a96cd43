"""What is known of the files of one project: the names of their weights, and what else differs."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from torch import Tensor

from .target import Pixels, Target

__all__ = [
    "IMAGENET",
    "LEFT_OVER",
    "Adapt",
    "Layout",
    "Rename",
    "Rule",
    "Values",
    "norms_of_all",
    "renamed",
    "same",
]

#: The name of a weight in the target, from the match of its name in the source
Rename: TypeAlias = Callable[[re.Match[str], Target], str | None]
Rule: TypeAlias = tuple[str, Rename]
Values: TypeAlias = dict[str, Tensor]
#: The values of a weight as the target needs them, and what was done to them (an empty text: nothing).
#: It is given the name in the target, the values and the target.
Adapt: TypeAlias = Callable[[str, Tensor, Target], tuple[Tensor, str]]

IMAGENET = Pixels("RGB", (123.675, 116.28, 103.53), (58.395, 57.12, 57.375))

#: Patterns of names that are no weights, in whatever layout -> what they are
LEFT_OVER = {
    r".*num_batches_tracked": "a counter of a batch norm that the model does not have",
    r"pixel_(mean|std)": "the recipe has its own pixel statistics",
    r".*\.cell_anchors\.\d+": "anchors follow from the recipe",
    r"ema_.*": "averaged weights beside the weights",
}


def same(match: re.Match[str], target: Target) -> str:
    """The name as it is."""
    return match[0]


def renamed(template: str) -> Rename:
    r"""The name by a template with ``\1`` for groups of the pattern."""
    return lambda match, target: match.expand(template)


def norms_of_all(target: Target) -> list[str]:
    """The note that the outputs of the published models are normalised, where the target's are not."""
    if all(target.norms):
        return []
    return ["the published models have a norm after each stage: give model.backbone.bottom_up.level_norm=all"]


@dataclass(frozen=True)
class Layout:
    """The layout of the files of one project.

    Attributes:
        name: what it is called.
        signature: patterns of names; a file has the layout if each of them is found in it.
        rules: (pattern of a whole name, its name in the target); the first that fits counts.
        left_over: patterns of names that have no place in the target -> why.
        fresh: patterns of names in the target that these files do not have -> how such a weight starts.
        adapt: patterns of names in the target -> what is done to their values.
        pixels: what the model was shown.
        prepare: brings the weights of a file to the names that the rules are written for.
        notes: tells in what the target differs from the model that the weights were trained in.
    """

    name: str
    signature: tuple[str, ...]
    rules: tuple[Rule, ...]
    left_over: Mapping[str, str] = field(default_factory=dict)
    fresh: Mapping[str, str] = field(default_factory=dict)
    adapt: Mapping[str, Adapt] = field(default_factory=dict)
    pixels: Callable[[Values], Pixels] = lambda weights: IMAGENET
    prepare: Callable[[Values], Values] = lambda weights: weights
    notes: Callable[[Target], list[str]] = lambda target: []

    def fits(self, weights: Values) -> bool:
        """Whether a file has this layout."""
        return all(any(re.fullmatch(p, name) for name in weights) for p in self.signature)

    def rename(self, name: str, target: Target) -> str | None:
        """The name of a weight in the target, by the first rule that fits; None: there is none."""
        for pattern, rename in self.rules:
            if match := re.fullmatch(pattern, name):
                return rename(match, target)
        return None

    def why_left_over(self, name: str) -> str | None:
        """Why a weight without a place in the target needs none; None: it should have one."""
        return _first({**self.left_over, **LEFT_OVER}, name)

    def why_fresh(self, name: str) -> str | None:
        """How a weight of the target that these files do not have starts; None: they should have it."""
        return _first(self.fresh, name)


def _first(reasons: Mapping[str, str], name: str) -> str | None:
    return next((reason for pattern, reason in reasons.items() if re.fullmatch(pattern, name)), None)
