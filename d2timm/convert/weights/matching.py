"""Give each weight of a file its place in a detector, and account for all of them."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ...backbone.weights import first_convolutions
from ...errors import ConfigError
from .layout import Layout, Values
from .target import BODY, Pixels, Target, part_of

__all__ = ["Match", "match"]

COUNTER = ".num_batches_tracked"
#: Weights whose shapes follow from the number of classes
OF_CLASSES = r".*(cls_score|bbox_pred|mask_head\..*predictor|sem_seg_head\.predictor)\.(weight|bias)"


@dataclass
class Match:
    """What became of each weight, on both sides.

    Attributes:
        weights: of the target, to be saved.
        mapped: name in the source -> name in the target.
        left_over: names in the source that need no place -> why.
        homeless: names in the source that should have one -> what is wrong.
        fresh: names in the target that these files do not have -> how they start.
        missing: names in the target that should have had a source.
        notes: what was done to values, and in what the models differ.
    """

    weights: Values = field(default_factory=dict)
    mapped: dict[str, str] = field(default_factory=dict)
    left_over: dict[str, str] = field(default_factory=dict)
    homeless: dict[str, str] = field(default_factory=dict)
    fresh: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether nothing is lost."""
        return not self.homeless and not self.missing

    def note(self, text: str) -> None:
        """Tell something, once."""
        if text and text not in self.notes:
            self.notes.append(text)


def match(
    weights: Values, layout: Layout, target: Target, parts: Collection[str] = (), new_classes: bool = False
) -> Match:
    """Bring weights to the names, shapes and conventions of a detector.

    Args:
        weights: of a file.
        layout: of that file.
        target: the detector.
        parts: of the target, that are wanted; none: all.
        new_classes: leave out what depends on the number of classes where that is another.

    Raises:
        ConfigError: nothing of the backbone fits, so that it is of another kind; or the models are shown
            pixels that cannot be brought together.
    """
    found, same_model = Match(), False
    pixels = layout.pixels(weights)
    for name, values in layout.prepare(weights).items():
        place = layout.rename(name, target)
        wanted = target.state.get(place) if place else None
        same_model |= wanted is not None and place is not None and place.startswith(BODY)
        if place is None or wanted is None:
            _without_place(found, layout, name, place, parts)
        elif parts and part_of(place) not in parts:
            found.left_over[name] = f"of the part {part_of(place)}"
        elif place in found.weights:
            found.homeless[name] = f"{place} has another source"
        else:
            adapted, told = _adapt(layout, place, values, target, pixels)
            if adapted.shape == wanted.shape:
                found.note(told)
                found.mapped[name] = place
                found.weights[place] = adapted.to(wanted.dtype)
            elif new_classes and re.fullmatch(OF_CLASSES, place) and adapted.shape[1:] == wanted.shape[1:]:
                found.left_over[name] = "of another number of classes"
                found.fresh[place] = "of another number of classes"
            else:
                found.homeless[name] = f"{_told(adapted)}, where {place} has {_told(wanted)}"
    if not same_model and (not parts or "backbone" in parts):
        raise ConfigError(
            f"a {layout.name} has no weights for {target.model_name}: give the recipe of that model, or "
            "model.backbone.bottom_up.model_name="
        )
    _without_source(found, layout, target, parts)
    for text in layout.notes(target):
        found.note(text)
    return found


def _without_place(
    found: Match, layout: Layout, name: str, place: str | None, parts: Collection[str]
) -> None:
    reason = layout.why_left_over(name)
    if reason is not None:
        found.left_over[name] = reason
    elif parts and place and part_of(place) not in parts:
        found.left_over[name] = f"of the part {part_of(place)}"
    else:
        found.homeless[name] = f"the model has no {place}" if place else "no part of this layout"


def _without_source(found: Match, layout: Layout, target: Target, parts: Collection[str]) -> None:
    """All else that the target has."""
    for name, wanted in target.state.items():
        if name in found.weights or name in found.fresh or (parts and part_of(name) not in parts):
            continue
        reason = layout.why_fresh(name)
        if name.endswith(COUNTER):
            found.fresh[name] = "counters of batch norms start at 0"
            found.weights[name] = torch.zeros(wanted.shape, dtype=wanted.dtype)
        elif reason is not None:
            found.fresh[name] = reason
        else:
            found.missing.append(name)


def _adapt(layout: Layout, place: str, values: Tensor, target: Target, pixels: Pixels) -> tuple[Tensor, str]:
    """Values as the target needs them."""
    for pattern, adapt in layout.adapt.items():
        if re.fullmatch(pattern, place):
            return adapt(place, values, target)
    if place in {f"{BODY}{name}.weight" for name in first_convolutions(target.body)}:
        return _fold_pixels(values, pixels, target.pixels)
    return values, ""


def _fold_pixels(kernels: Tensor, shown: Pixels, wanted: Pixels) -> tuple[Tensor, str]:
    """Kernels (N, C, h, w) of a first convolution for pixels of another order and another scale.

    Padding is the mean in both, and so stays 0: the features are the same.
    """
    if shown == wanted or kernels.dim() != 4 or kernels.shape[1] != len(shown.order):
        return kernels, ""
    if sorted(shown.order) != sorted(wanted.order):
        return kernels, ""  # the shapes tell
    order = [shown.order.index(channel) for channel in wanted.order]
    mean, std = ([values[i] for i in order] for values in (shown.mean, shown.std))
    if not torch.allclose(torch.tensor(mean), torch.tensor(wanted.mean), rtol=0, atol=1e-3):
        raise ConfigError(
            f"these weights are for a pixel mean of {mean} in {wanted.order}, the recipe's is "
            f"{list(wanted.mean)}: give model.pixel_mean={str(mean).replace(' ', '')} here and wherever they "
            "are used"
        )
    factors = torch.tensor(wanted.std, dtype=kernels.dtype) / torch.tensor(std, dtype=kernels.dtype)
    done = []
    if shown.order != wanted.order:
        done.append(f"{shown.order} to {wanted.order}")
    if not torch.equal(factors, torch.ones_like(factors)):
        done.append("scaled by " + ", ".join(f"{factor:.5g}" for factor in factors))
    return kernels[:, order] * factors.view(
        1, -1, 1, 1
    ), f"first convolution: {', '.join(done)}, which is exact"


def _told(x: Tensor) -> str:
    return "x".join(map(str, x.shape)) or "one number"
