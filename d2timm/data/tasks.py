"""What a detector finds, in the names that evaluators give their results by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = ["main_metric", "tasks"]


def tasks(proposals: Any, dense: Any, masks: Any, keypoints: Any, semantic: Any) -> list[str]:
    """What a detector finds; each argument is None where the detector has no such part.

    Args:
        proposals: anything of a proposal generator, whose ROI heads find boxes.
        dense: anything of a detector that finds boxes without ROI heads.
        masks: anything of a mask head.
        keypoints: anything of a keypoint head.
        semantic: anything of a semantic segmentation head.

    Returns:
        Of ``bbox``, ``segm``, ``keypoints``, ``sem_seg`` and ``panoptic_seg``, in this order.
    """
    boxes = proposals is not None or dense is not None
    parts = {
        "bbox": boxes,
        "segm": masks is not None,
        "keypoints": keypoints is not None,
        "sem_seg": semantic is not None,
        "panoptic_seg": boxes and semantic is not None,
    }
    return [task for task, there in parts.items() if there]


def main_metric(tasks: Sequence[str]) -> str:
    """The metric that runs are compared by, as ``task/metric``, unless another is named."""
    if "panoptic_seg" in tasks:
        return "panoptic_seg/PQ"
    if "bbox" not in tasks:
        return "sem_seg/mIoU"
    return "keypoints/AP" if "keypoints" in tasks else "bbox/AP"
