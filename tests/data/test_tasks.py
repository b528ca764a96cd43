"""The metric by which runs are compared follows from the tasks of the detector."""

from __future__ import annotations

import pytest

from d2timm.data.tasks import main_metric


@pytest.mark.parametrize(
    ("tasks", "metric"),
    [
        (["bbox"], "bbox/AP"),
        (["bbox", "segm"], "bbox/AP"),
        (["bbox", "keypoints"], "keypoints/AP"),
        (["bbox", "segm", "keypoints"], "keypoints/AP"),
        (["sem_seg"], "sem_seg/mIoU"),
        (["bbox", "segm", "sem_seg", "panoptic_seg"], "panoptic_seg/PQ"),
    ],
)
def test_main_metric(tasks: list[str], metric: str) -> None:
    assert main_metric(tasks) == metric
