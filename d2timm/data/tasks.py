"""The tasks of detectors and datasets, named by the keys of the evaluators' results.

``bbox``, ``segm`` and ``keypoints`` are tasks on objects; ``sem_seg`` classifies pixels; ``panoptic_seg``
combines both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

__all__ = ["Task", "main_metric"]

Task: TypeAlias = Literal["bbox", "segm", "keypoints", "sem_seg", "panoptic_seg"]


def main_metric(tasks: Sequence[str]) -> str:
    """The metric by which runs are compared unless another is configured, as ``task/metric``."""
    if "panoptic_seg" in tasks:
        return "panoptic_seg/PQ"
    if "bbox" not in tasks:
        return "sem_seg/mIoU"
    return "keypoints/AP" if "keypoints" in tasks else "bbox/AP"
