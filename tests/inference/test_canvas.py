"""Results of huge images are enlarged to the image."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from d2timm.inference import canvas
from d2timm.inference.canvas import canvas_size, enlarged


@pytest.mark.parametrize("size", [(480, 640), (1, 1), (4000, 6000), (5000, 6700)])
def test_usual_images_keep_their_size(size: tuple[int, int]) -> None:
    assert canvas_size(*size) == size


@pytest.mark.parametrize("size", [(20000, 20000), (100000, 100), (3, 10**7), (1, 2**30)])
def test_huge_images_are_reduced(size: tuple[int, int]) -> None:
    height, width = canvas_size(*size)
    assert 1 <= height * width <= canvas.MAX_PIXELS
    assert 1 <= min(height, width) <= max(height, width) <= canvas.MAX_SIDE
    if min(height, width) > 100:
        assert height / width == pytest.approx(size[0] / size[1], rel=0.01)


def annotation(mask: Any) -> dict[str, Any]:
    rle = coco_mask.encode(np.asfortranarray(mask))
    box, area = coco_mask.toBbox(rle).tolist(), int(coco_mask.area(rle))
    rle["counts"] = rle["counts"].decode()
    return {"bbox": box, "area": area, "segmentation": rle, "score": 0.5}


def test_mask_box_and_keypoints_are_enlarged() -> None:
    mask = np.zeros((4, 5), np.uint8)
    mask[1:3, 2:5] = 1
    small = {**annotation(mask), "keypoints": [1.5, 0.5, 2, -0.5, -0.5, 1]}
    large = enlarged(small, (4, 5), (12, 10))
    expected = annotation(np.kron(mask, np.ones((3, 2), np.uint8)))
    assert large == {**expected, "keypoints": [3.5, 2.5, 2, -0.5, -0.5, 1]}
    assert small["bbox"] == [2, 1, 3, 2], "the argument is not changed"
    assert enlarged(small, (4, 5), (4, 5)) == small


def test_box_without_mask() -> None:
    large = enlarged({"bbox": [1.0, 2.0, 3.0, 4.0], "area": 12.0}, (10, 10), (20, 30))
    assert large == {"bbox": [3, 4, 9, 8], "area": 72}
