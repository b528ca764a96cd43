"""Compare an exported detector's results with detectron2's own inference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..inference.predictor import Predictor
from ..inference.trained import Trained
from ..utils.images import Picture

__all__ = ["Difference", "Result", "compare", "reference_result"]

#: ``boxes`` (N, 4), ``classes`` (N,), ``scores`` (N,) and, if the detector has masks, ``masks`` (N, H, W)
Result = Mapping[str, NDArray[np.generic]]


@dataclass(frozen=True)
class Difference:
    """The differences between two results for one image.

    Attributes:
        objects: number of objects in the first result.
        unmatched: number of objects in either result that the other does not have.
        boxes: largest difference of a box coordinate, in pixels.
        scores: largest difference of a score.
        pixels: number of mask pixels that differ.
        area: number of mask pixels in the first result.
    """

    objects: int
    unmatched: int
    boxes: float = 0.0
    scores: float = 0.0
    pixels: int = 0
    area: int = 0

    def __str__(self) -> str:
        if not self.objects and not self.unmatched:
            return "no objects in either"
        text = f"{self.objects} objects, boxes within {self.boxes:.2g} px, scores within {self.scores:.2g}"
        if self.area:
            text += f", {self.pixels} of {self.area} mask pixels differ"
        return text + (f", {self.unmatched} objects are in one result only" if self.unmatched else "")


def compare(one: Result, other: Result, max_distance: float = 1.0) -> Difference:
    """Match each object of a result with the nearest one of its class in another result.

    Args:
        one: the first result.
        other: the second result.
        max_distance: boxes whose coordinates differ by more pixels do not match.
    """
    free = np.ones(len(other["boxes"]), bool)
    pairs = []
    for i, box in enumerate(one["boxes"]):
        distance = np.abs(np.asarray(other["boxes"]) - box).max(axis=1, initial=0.0)
        candidates = free & (other["classes"] == one["classes"][i]) & (distance <= max_distance)
        if candidates.any():
            j = int(np.where(candidates, distance, np.inf).argmin())
            free[j] = False
            pairs.append((i, j))
    left, right = (np.array([pair[side] for pair in pairs], int) for side in (0, 1))
    unmatched = len(one["boxes"]) + len(other["boxes"]) - 2 * len(pairs)
    if not pairs:
        return Difference(len(one["boxes"]), unmatched)

    def largest(name: str) -> float:
        return float(np.abs(one[name][left] - other[name][right]).max())

    pixels = area = 0
    if "masks" in one:
        pixels = int((one["masks"][left] != other["masks"][right]).sum())
        area = int(one["masks"].sum())
    return Difference(len(one["boxes"]), unmatched, largest("boxes"), largest("scores"), pixels, area)


def reference_result(trained: Trained, picture: Picture, score_threshold: float) -> Result:
    """The result of detectron2's own inference.

    Args:
        trained: the detector.
        picture: (H, W, 3) RGB.
        score_threshold: 0 to 1; detections that do not exceed it are dropped.
    """
    (output,) = Predictor(trained, score_threshold).outputs([picture])
    instances = output["instances"]
    result = {
        "boxes": instances.pred_boxes.tensor.numpy(),
        "classes": instances.pred_classes.numpy(),
        "scores": instances.scores.numpy(),
    }
    if instances.has("pred_masks"):
        result["masks"] = instances.pred_masks.numpy().astype(np.bool_)
    return result
