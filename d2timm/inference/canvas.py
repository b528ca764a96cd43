"""Huge images: masks and pictures of a size that memory allows, enlarged where they are written.

A detector returns each mask, and each class of pixels, at the size of the image: 100 masks of 400 megapixels
would take 40 GB. The results of an image larger than ``MAX_PIXELS`` are therefore computed for a reduced
canvas; the network's own resolution is lower still.
"""

from __future__ import annotations

import math
from typing import Any

import cv2
from pycocotools import mask as coco_mask

__all__ = ["canvas_size", "enlarged"]

MAX_PIXELS = 2**25  # of a canvas; a picture of it takes about 4 GB to draw
MAX_SIDE = 65500  # pixels, the limit of JPEG


def canvas_size(height: int, width: int) -> tuple[int, int]:
    """The (height, width) at which the results of an image are computed: its own, or as large as allowed."""
    scale = min(1.0, math.sqrt(MAX_PIXELS / (height * width)), MAX_SIDE / max(height, width))
    return max(int(height * scale), 1), max(int(width * scale), 1)


def enlarged(annotation: dict[str, Any], canvas: tuple[int, int], size: tuple[int, int]) -> dict[str, Any]:
    """Bring an annotation in COCO's format from a canvas to the image.

    Args:
        annotation: ``bbox``, ``area`` and perhaps ``segmentation`` (run lengths) and ``keypoints``.
        canvas: (height, width) that its coordinates refer to.
        size: (height, width) of the image.
    """
    if canvas == size:
        return annotation
    y_scale, x_scale = size[0] / canvas[0], size[1] / canvas[1]
    x, y, width, height = annotation["bbox"]
    box = [x * x_scale, y * y_scale, width * x_scale, height * y_scale]
    result = {**annotation, "bbox": box, "area": annotation["area"] * x_scale * y_scale}
    if "keypoints" in annotation:
        result["keypoints"] = list(annotation["keypoints"])
        for axis, scale in enumerate((x_scale, y_scale)):
            # COCO's coordinate 0 is the centre of the first pixel
            result["keypoints"][axis::3] = [(v + 0.5) * scale - 0.5 for v in annotation["keypoints"][axis::3]]
    if "segmentation" in annotation:
        columns = coco_mask.decode(annotation["segmentation"]).T  # (W, H), in the order of the memory
        columns = cv2.resize(columns, size, interpolation=cv2.INTER_NEAREST)
        rle = coco_mask.encode(columns.T)
        result["area"] = int(coco_mask.area(rle))
        result["segmentation"] = {**rle, "counts": rle["counts"].decode()}
    return result
