"""Match the weights of a file with the weights of a detector, and account for all of them."""

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
#: Weights whose shapes depend on the number of classes
OF_CLASSES = r".*(cls_score|bbox_pred|mask_head\..*predictor|sem_seg_head\.predictor)\.(weight|bias)"
OTHER_CLASSES = "depends on the number of classes, which differs"


@dataclass
class Match:
    """What became of each weight of the source (the file) and of the target (the detector).

    Attributes:
        weights: weights of the target, to be saved.
        mapped: name in the source -> name in the target.
        not_needed: name in the source -> why it is not needed.
        unplaced: name in the source that should have a counterpart -> the problem.
        initialized: name in the target that these files lack -> how it starts.
        missing: names in the target that should have a source.
        notes: changes of values, and differences between the models.
    """

    weights: Values = field(default_factory=dict)
    mapped: dict[str, str] = field(default_factory=dict)
    not_needed: dict[str, str] = field(default_factory=dict)
    unplaced: dict[str, str] = field(default_factory=dict)
    initialized: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether no weight is lost."""
        return not self.unplaced and not self.missing

    def note(self, text: str) -> None:
        """Add a note, once; an empty text is ignored."""
        if text and text not in self.notes:
            self.notes.append(text)


def match(
    weights: Values, layout: Layout, target: Target, parts: Collection[str] = (), new_classes: bool = False
) -> Match:
    """Convert weights to the names, shapes and conventions of a detector.

    Args:
        weights: weights of a file.
        layout: layout of the file.
        target: the detector.
        parts: parts of the target to convert; empty: all.
        new_classes: whether to leave out weights that depend on the number of classes, if it differs.

    Raises:
        ConfigError: no weight fits the backbone, so the models differ; or their image formats are
            incompatible.
    """
    result, same_model = Match(), False
    pixels = layout.pixels(weights)
    for name, values in layout.prepare(weights).items():
        new_name = layout.rename(name, target)
        expected = target.state.get(new_name) if new_name else None
        same_model |= expected is not None and new_name is not None and new_name.startswith(BODY)
        if new_name is None or expected is None:
            _record_unmatched(result, layout, name, new_name, parts)
        elif parts and part_of(new_name) not in parts:
            result.not_needed[name] = f"belongs to {part_of(new_name)}"
        elif new_name in result.weights:
            result.unplaced[name] = f"{new_name} has another source"
        else:
            adapted, note = _adapt(layout, new_name, values, target, pixels)
            if adapted.shape == expected.shape:
                result.note(note)
                result.mapped[name] = new_name
                result.weights[new_name] = adapted.to(expected.dtype)
            elif (
                new_classes and re.fullmatch(OF_CLASSES, new_name) and adapted.shape[1:] == expected.shape[1:]
            ):
                result.not_needed[name] = OTHER_CLASSES
                result.initialized[new_name] = OTHER_CLASSES
            else:
                result.unplaced[name] = f"{_shape(adapted)}, but {new_name} has {_shape(expected)}"
    if not same_model and (not parts or "backbone" in parts):
        raise ConfigError(
            f"a {layout.name} has no weights for {target.model_name}: give the recipe of that model, or "
            "model.backbone.bottom_up.model_name="
        )
    _record_missing(result, layout, target, parts)
    for text in layout.notes(target):
        result.note(text)
    return result


def _record_unmatched(
    result: Match, layout: Layout, name: str, new_name: str | None, parts: Collection[str]
) -> None:
    """Record a weight of the source without a counterpart in the target."""
    reason = layout.why_not_needed(name)
    if reason is not None:
        result.not_needed[name] = reason
    elif parts and new_name and part_of(new_name) not in parts:
        result.not_needed[name] = f"belongs to {part_of(new_name)}"
    else:
        result.unplaced[name] = f"the model has no {new_name}" if new_name else "unknown in this layout"


def _record_missing(result: Match, layout: Layout, target: Target, parts: Collection[str]) -> None:
    """Record the remaining weights of the target."""
    for name, expected in target.state.items():
        if name in result.weights or name in result.initialized or (parts and part_of(name) not in parts):
            continue
        reason = layout.why_initialized(name)
        if name.endswith(COUNTER):
            result.initialized[name] = "counters of batch norms start at 0"
            result.weights[name] = torch.zeros(expected.shape, dtype=expected.dtype)
        elif reason is not None:
            result.initialized[name] = reason
        else:
            result.missing.append(name)


def _adapt(
    layout: Layout, new_name: str, values: Tensor, target: Target, pixels: Pixels
) -> tuple[Tensor, str]:
    """Return the values for the target, and a note on the change ("": none)."""
    for pattern, adapt in layout.adapt.items():
        if re.fullmatch(pattern, new_name):
            return adapt(new_name, values, target)
    if new_name in {f"{BODY}{name}.weight" for name in first_convolutions(target.body)}:
        return _fold_pixels(values, pixels, target.pixels)
    return values, ""


def _fold_pixels(kernels: Tensor, old: Pixels, new: Pixels) -> tuple[Tensor, str]:
    """Adapt kernels (N, C, h, w) of a first convolution to another channel order and scale of the pixels.

    Padding stands for the mean in both formats and remains 0, so the features are the same.
    """
    if old == new or kernels.dim() != 4 or kernels.shape[1] != len(old.order):
        return kernels, ""
    if sorted(old.order) != sorted(new.order):
        return kernels, ""  # a difference in shapes is reported
    order = [old.order.index(channel) for channel in new.order]
    mean, std = ([values[i] for i in order] for values in (old.mean, old.std))
    if not torch.allclose(torch.tensor(mean), torch.tensor(new.mean), rtol=0, atol=1e-3):
        raise ConfigError(
            f"these weights expect a pixel mean of {mean} in {new.order}, the recipe has {list(new.mean)}: "
            f"give model.pixel_mean={str(mean).replace(' ', '')} here and wherever you use them"
        )
    factors = torch.tensor(new.std, dtype=kernels.dtype) / torch.tensor(std, dtype=kernels.dtype)
    changes = []
    if old.order != new.order:
        changes.append(f"{old.order} to {new.order}")
    if not torch.equal(factors, torch.ones_like(factors)):
        changes.append("scaled by " + ", ".join(f"{factor:.5g}" for factor in factors))
    note = f"first convolution: {', '.join(changes)}, which is exact"
    return kernels[:, order] * factors.view(1, -1, 1, 1), note


def _shape(x: Tensor) -> str:
    return "x".join(map(str, x.shape)) or "one number"
