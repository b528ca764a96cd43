"""Traits: what the parts of a detector declare about themselves, so that a config can be checked.

A class declares its traits as the class attribute ``traits``; subclasses inherit them. The module
``detectron2_traits`` declares them for detectron2's classes. This module does not import torch, because
configs are checked before torch is imported.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["TASKS", "TopBlock", "Traits"]

#: Tasks of detectors, in the order of their results
TASKS = ("bbox", "segm", "keypoints", "sem_seg", "panoptic_seg")


@dataclass(frozen=True)
class TopBlock:
    """The levels that a top block adds to a neck.

    Attributes:
        num_levels: number of levels that it adds, each of double the stride.
        in_feature: the level or output of the backbone that it starts from by default.
        learned: whether it has parameters.
    """

    num_levels: int
    in_feature: str
    learned: bool


@dataclass(frozen=True)
class Traits:
    """The declaration of one class.

    Attributes:
        tasks: for detectors and ROI heads: task -> argument that enables it, "" if it is always enabled.
        levels: for detectors, proposal generators and heads: argument that names levels of the neck ->
            argument that is built for these levels (anchors, a pooler), "" if there is none.
        partial_masks: for ROI heads: whether the mask head leaves out objects whose ``gt_has_mask`` is false.
        roi_heads: for detectors: the ROI heads that it needs, ``none``, ``any`` or ``masks``.
        fuses_upwards: for necks: whether each level contributes to the coarser ones.
        own_last_level: for necks: whether the top block starts from the neck's last level, whatever its
            ``in_feature`` is.
        top_block: for top blocks: the levels that it adds.
    """

    tasks: Mapping[str, str] = field(default_factory=dict)
    levels: Mapping[str, str] = field(default_factory=dict)
    partial_masks: bool = False
    roi_heads: Literal["none", "any", "masks"] = "none"
    fuses_upwards: bool = False
    own_last_level: bool = True
    top_block: TopBlock | None = None

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Traits:
        """Restore traits from the dictionary that ``dataclasses.asdict`` made."""
        block = values["top_block"]
        return cls(**{**values, "top_block": TopBlock(**block) if block else None})
