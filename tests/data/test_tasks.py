"""What a detector finds follows from the parts that it has."""

from __future__ import annotations

import pytest

from d2timm.data.tasks import main_metric, tasks

PARTS = ("proposals", "dense", "masks", "keypoints", "semantic")


@pytest.mark.parametrize(
    ("parts", "found", "metric"),
    [
        (["proposals"], ["bbox"], "bbox/AP"),
        (["dense"], ["bbox"], "bbox/AP"),
        (["proposals", "masks"], ["bbox", "segm"], "bbox/AP"),
        (["proposals", "keypoints"], ["bbox", "keypoints"], "keypoints/AP"),
        (["proposals", "masks", "keypoints"], ["bbox", "segm", "keypoints"], "keypoints/AP"),
        (["semantic"], ["sem_seg"], "sem_seg/mIoU"),
        (["proposals", "masks", "semantic"], ["bbox", "segm", "sem_seg", "panoptic_seg"], "panoptic_seg/PQ"),
    ],
)
@pytest.mark.parametrize("value", [0, 0.7, ["res2"]])
def test_what_is_found_and_compared(parts: list[str], found: list[str], metric: str, value: object) -> None:
    there = {part: value if part in parts else None for part in PARTS}
    assert tasks(**there) == found
    assert main_metric(found) == metric
