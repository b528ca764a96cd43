"""Keep the masks of an R-CNN as its mask head predicts them, instead of pasting them into whole images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from detectron2.modeling import GeneralizedRCNN
from detectron2.structures import Instances

__all__ = ["ROI_MASKS", "set_masks_aside", "without_pasting"]

#: Field of ``Instances``: (N, 1, M, M) probabilities of float32, 0 to 1, of a mask in its box
ROI_MASKS = "roi_masks"

Detector: TypeAlias = Callable[[Sequence[Mapping[str, Any]]], Sequence[Mapping[str, Any]]]


def without_pasting(model: Detector) -> Detector:
    """Return a function that detects like an R-CNN, with ``roi_masks`` in the place of ``pred_masks``.

    Other detectors are returned as they are, and so are R-CNNs with an inference of their own, such as
    Panoptic FPN, which needs pasted masks. Masks of another form or data type are pasted as usual.

    Args:
        model: maps dataset dicts to outputs with ``instances``, in the mode of evaluation.
    """
    kind: Any = type(model)
    if not (
        isinstance(model, GeneralizedRCNN)
        and kind.forward is GeneralizedRCNN.forward
        and kind.inference is GeneralizedRCNN.inference
    ):
        return model

    def detect(images: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
        found = model.inference(images, do_postprocess=False)
        sizes = [instances.image_size for instances in found]
        for instances in found:
            set_masks_aside(instances)
        outputs: Sequence[Mapping[str, Any]] = GeneralizedRCNN._postprocess(found, images, sizes)
        return outputs

    return detect


def set_masks_aside(instances: Instances) -> None:
    """Move the masks to a field that detectron2 does not paste, but selects with the detections."""
    masks = instances.pred_masks if instances.has("pred_masks") else None
    if isinstance(masks, torch.Tensor) and masks.dtype == torch.float32 and masks.shape[1:2] == (1,):
        instances.set(ROI_MASKS, masks)
        instances.remove("pred_masks")
