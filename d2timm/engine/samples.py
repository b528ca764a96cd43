"""Thumbnails of validation images with objects and detections, for the page of a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from detectron2.structures import BoxMode, Instances
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from ..runs.samples import SIDE, Sample, Shape
from ..utils.images import Picture

__all__ = ["make_sample"]

QUALITY = 80  # of the JPEG
MOST = 50  # detections of an image
LOWEST = 0.05  # score of a detection
TOLERANCE = 0.75  # by which an outline may differ from its mask, in pixels of the thumbnail


def make_sample(entry: Mapping[str, Any], image: Picture, output: Mapping[str, Any]) -> Sample | None:
    """Make the sample of an image; None if the detector does not detect objects.

    Masks are shown where the detector predicts them, for objects and detections.

    Args:
        entry: the dataset dict of the image.
        image: (H, W, 3) RGB.
        output: of the detector for the image, on the CPU.
    """
    if "instances" not in output or output["instances"].pred_boxes.tensor.shape[1] != 4:
        return None
    height, width = image.shape[:2]
    scale = min(SIDE / max(height, width), 1)
    size = (max(round(width * scale), 1), max(round(height * scale), 1))
    thumbnail = cv2.resize(image, size, interpolation=cv2.INTER_AREA) if scale < 1 else image
    _, jpeg = cv2.imencode(
        ".jpg", cv2.cvtColor(thumbnail, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, QUALITY]
    )
    to_thumbnail = np.array([size[0] / width, size[1] / height])
    instances = output["instances"]
    return Sample(
        Path(entry["file_name"]).name,
        *size,
        jpeg.tobytes(),
        _objects(entry, to_thumbnail, size, instances.has("pred_masks")),
        _detections(instances, to_thumbnail, size),
    )


def _objects(
    entry: Mapping[str, Any], scale: NDArray[np.float64], size: tuple[int, int], with_masks: bool
) -> list[Shape]:
    """The annotations of an image."""
    shapes = []
    for annotation in entry.get("annotations") or ():
        mode = BoxMode(annotation["bbox_mode"])
        if mode not in (BoxMode.XYXY_ABS, BoxMode.XYWH_ABS):
            continue
        box = BoxMode.convert([float(value) for value in annotation["bbox"]], mode, BoxMode.XYXY_ABS)
        segmentation = annotation.get("segmentation") if with_masks else None
        outlines: list[list[float]] = []
        if isinstance(segmentation, Mapping):  # run lengths
            outlines = _outlines(_decode(segmentation), size)
        elif segmentation:
            polygons = (np.reshape(polygon, (-1, 2)) * scale for polygon in segmentation)
            outlines = [outline for polygon in polygons if (outline := _simplified(polygon))]
        shapes.append(Shape(int(annotation["category_id"]), _scaled(box, scale), None, outlines))
    return shapes


def _detections(instances: Instances, scale: NDArray[np.float64], size: tuple[int, int]) -> list[Shape]:
    """The detections of an image, the most confident first."""
    order = instances.scores.argsort(descending=True, stable=True)[:MOST]
    best = instances[order[instances.scores[order] >= LOWEST]]
    shapes = []
    for index in range(len(best)):
        outlines = _outlines(best.pred_masks[index].numpy(), size) if best.has("pred_masks") else []
        score = round(float(best.scores[index]), 4)
        box = _scaled(best.pred_boxes.tensor[index].tolist(), scale)
        shapes.append(Shape(int(best.pred_classes[index]), box, score, outlines))
    return shapes


def _scaled(box: Sequence[float], scale: NDArray[np.float64]) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = (np.reshape(box, (2, 2)) * scale).ravel().round(1).tolist()
    return x0, y0, x1, y1


def _decode(run_lengths: Mapping[str, Any]) -> NDArray[np.uint8]:
    """(H, W) 0 or 1."""
    if isinstance(run_lengths["counts"], list):
        height, width = run_lengths["size"]
        run_lengths = coco_mask.frPyObjects(dict(run_lengths), height, width)
    mask: NDArray[np.uint8] = coco_mask.decode(dict(run_lengths))
    return mask


def _outlines(mask: NDArray[Any], size: tuple[int, int]) -> list[list[float]]:
    """The outer outlines of a mask (H, W) on a thumbnail of a size (width, height)."""
    small = cv2.resize(mask.astype(np.uint8) * 255, size, interpolation=cv2.INTER_AREA) >= 128
    found, _ = cv2.findContours(small.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    # contours run through the centres of pixels
    return [outline for contour in found if (outline := _simplified(contour.reshape(-1, 2) + 0.5))]


def _simplified(polygon: NDArray[Any]) -> list[float]:
    """x, y, x, y, … of a polygon (N, 2) with fewer points; empty if it has no area."""
    points = cv2.approxPolyDP(polygon.astype(np.float32).reshape(-1, 1, 2), TOLERANCE, True)
    return [round(float(value), 1) for value in points.ravel()] if len(points) > 2 else []
