"""What detectron2's own inference finds in an image: what an exported file is held against."""

from __future__ import annotations

import numpy as np

from ..images import Picture
from ..predictor import Predictor
from ..run_folder import Trained
from .compare import Result

__all__ = ["find_objects"]


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
