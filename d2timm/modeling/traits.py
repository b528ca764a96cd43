"""What the parts of a detector declare about themselves, for those who only have a config.

A class declares its traits where it is defined, as the class attribute ``traits``; ``detectron2_traits`` does
so for detectron2's classes. This module needs no torch: configs are checked before it is imported.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["TASKS", "TopBlock", "Traits"]

#: What a detector can find, in the order of its results
TASKS = ("bbox", "segm", "keypoints", "sem_seg", "panoptic_seg")


@dataclass(frozen=True)
class TopBlock:
    """A block that adds coarser levels to those of a neck.

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
    """What a part declares.

    Attributes:
        tasks: of a detector or ROI heads: task -> the argument that switches it on, "" if it is always on.
        levels: of a detector, proposal generator or head: argument that names levels of the neck -> argument
            that is built for these levels (anchors, a pooler), "" if there is none.
        roi_heads: of a detector: which ROI heads it needs, ``none``, ``any`` or ``masks``.
        fuses_upwards: of a neck: whether each of its levels feeds the coarser ones.
        own_last_level: of a neck: whether its top block starts from the neck's own last level, whatever
            ``in_feature`` of the top block is.
        top_block: of a top block: what it adds.
    """

    tasks: Mapping[str, str] = field(default_factory=dict)
    levels: Mapping[str, str] = field(default_factory=dict)
    roi_heads: Literal["none", "any", "masks"] = "none"
    fuses_upwards: bool = False
    own_last_level: bool = True
    top_block: TopBlock | None = None

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Traits:
        """The traits that ``dataclasses.asdict`` has turned into plain data."""
        block = values["top_block"]
        return cls(**{**values, "top_block": TopBlock(**block) if block else None})
