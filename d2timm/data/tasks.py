"""The tasks of detectors and datasets, in the names that evaluators give their results by.

``bbox``, ``segm`` and ``keypoints`` of objects; ``sem_seg``, the classes of pixels; ``panoptic_seg``, both.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["main_metric"]


def main_metric(tasks: Sequence[str]) -> str:
    """The metric that runs are compared by, as ``task/metric``, unless another is configured."""
    if "panoptic_seg" in tasks:
        return "panoptic_seg/PQ"
    if "bbox" not in tasks:
        return "sem_seg/mIoU"
    return "keypoints/AP" if "keypoints" in tasks else "bbox/AP"
