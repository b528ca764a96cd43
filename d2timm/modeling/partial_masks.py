"""ROI heads for datasets in which some objects have no mask: the mask head learns from the others.

The mapper sets ``gt_has_mask`` of each object, and detectron2 copies it onto the proposals that it matches.
Box heads learn from all objects.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from detectron2.modeling import roi_heads
from detectron2.structures import Instances
from torch import Tensor

from ..utils.targets import config_target
from .detectron2_traits import DETECTRON2
from .host_waits import SamplesWithFewerWaits

__all__ = ["TRAITS", "CascadeROIHeads", "StandardROIHeads", "with_masks"]

TRAITS = dataclasses.replace(DETECTRON2[roi_heads.StandardROIHeads], partial_masks=True)


def with_masks(proposals: Sequence[Instances]) -> list[Instances]:
    """Leave out the proposals of objects without a mask.

    Args:
        proposals: of each image. Those without ``gt_has_mask`` are not changed: their dataset has all masks,
            or their image has no objects.
    """
    return [
        # Indices, because each field would look them up in the mask again
        image[image.gt_has_mask.nonzero()[:, 0]] if image.has("gt_has_mask") else image
        for image in proposals
    ]


class _PartialMasks:
    """Trains the mask head on objects with masks."""

    def _forward_mask(self, features: Mapping[str, Tensor], instances: Sequence[Instances]) -> Any:
        chosen = with_masks(instances) if self.training else instances  # type: ignore[attr-defined]
        return super()._forward_mask(features, chosen)  # type: ignore[misc]


@config_target
class StandardROIHeads(_PartialMasks, SamplesWithFewerWaits, roi_heads.StandardROIHeads):
    """detectron2's heads of Faster, Mask and Keypoint R-CNN, for datasets with and without all masks."""

    traits = TRAITS


@config_target
class CascadeROIHeads(_PartialMasks, SamplesWithFewerWaits, roi_heads.CascadeROIHeads):
    """detectron2's heads of Cascade R-CNN, for datasets with and without all masks."""

    traits = TRAITS
