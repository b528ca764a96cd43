"""How far two results for one image are apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..inference.predictor import Predictor
from ..inference.trained import Trained
from ..utils.images import Picture

__all__ = ["Difference", "Result", "compare", "find_objects"]

#: ``boxes`` (N, 4), ``classes`` (N,), ``scores`` (N,) and, where there are any, ``masks`` (N, H, W)
Result = Mapping[str, NDArray[np.generic]]


@dataclass(frozen=True)
class Difference:
    """Two results for one image.

    Attributes:
        found: objects of the first result.
        unmatched: objects of either that the other lacks.
        boxes: the largest difference of a corner, in pixels.
        scores: the largest difference of a score.
        pixels: of masks, that differ.
        area: pixels of the first result's masks.
    """

    found: int
    unmatched: int
    boxes: float = 0.0
    scores: float = 0.0
    pixels: int = 0
    area: int = 0

    def __str__(self) -> str:
        if not self.found and not self.unmatched:
            return "no object in either"
        told = f"{self.found} objects, boxes within {self.boxes:.2g} px, scores within {self.scores:.2g}"
        if self.area:
            told += f", {self.pixels} of {self.area} mask pixels differ"
        return told + (f", {self.unmatched} objects are in one only" if self.unmatched else "")


def compare(one: Result, other: Result, near: float = 1.0) -> Difference:
    """Match the objects of two results, each with the nearest of its class, and tell how far they are apart.

    Args:
        one: the first result.
        other: the second one.
        near: boxes that are farther apart, in pixels, are not of the same object.
    """
    free = np.ones(len(other["boxes"]), bool)
    pairs = []
    for i, box in enumerate(one["boxes"]):
        distance = np.abs(np.asarray(other["boxes"]) - box).max(axis=1, initial=0.0)
        candidates = free & (other["classes"] == one["classes"][i]) & (distance <= near)
        if candidates.any():
            j = int(np.where(candidates, distance, np.inf).argmin())
            free[j] = False
            pairs.append((i, j))
    mine, yours = (np.array([pair[side] for pair in pairs], int) for side in (0, 1))
    unmatched = len(one["boxes"]) + len(other["boxes"]) - 2 * len(pairs)
    if not pairs:
        return Difference(len(one["boxes"]), unmatched)

    def farthest(name: str) -> float:
        return float(np.abs(one[name][mine] - other[name][yours]).max())

    pixels = area = 0
    if "masks" in one:
        pixels = int((one["masks"][mine] != other["masks"][yours]).sum())
        area = int(one["masks"].sum())
    return Difference(len(one["boxes"]), unmatched, farthest("boxes"), farthest("scores"), pixels, area)


def find_objects(trained: Trained, picture: Picture, score_threshold: float) -> Result:
    """The objects that a detector finds in an image.

    Args:
        trained: the detector.
        picture: the image, (H, W, 3) RGB.
        score_threshold: detections that are not above it are left out, 0 to 1.
    """
    (output,) = Predictor(trained, score_threshold).outputs([picture])
    instances = output["instances"]
    found = {
        "boxes": instances.pred_boxes.tensor.numpy(),
        "classes": instances.pred_classes.numpy(),
        "scores": instances.scores.numpy(),
    }
    if instances.has("pred_masks"):
        found["masks"] = instances.pred_masks.numpy().astype(np.bool_)
    return found
