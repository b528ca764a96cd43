"""Test-time augmentation: run a detector on each image at several scales, also mirrored.

detectron2 implements it for R-CNNs, configured by a yacs config, which is derived here from the detector.
Dense detectors and semantic segmentation work the same way:

    image file -> views, each resized once -> detector -> mirroring undone, at the image's size -> merged
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.data import detection_utils
from detectron2.data import transforms as T
from detectron2.layers import batched_nms
from detectron2.modeling import GeneralizedRCNN, GeneralizedRCNNWithTTA
from detectron2.modeling.meta_arch import PanopticFPN, SemanticSegmentor
from detectron2.modeling.meta_arch.dense_detector import DenseDetector
from detectron2.structures import Instances
from fvcore.transforms import HFlipTransform
from omegaconf import DictConfig
from torch import nn

from ..config.build import instantiate
from ..data.mapper import largest_size
from ..data.resizing import AugInput, to_tensor
from ..errors import ConfigError
from ..utils.images import read_image

__all__ = [
    "DenseDetectorWithTTA",
    "SemanticSegmentorWithTTA",
    "Views",
    "tta_of",
    "with_tta",
    "with_tta_results",
]


def tta_of(tta: DictConfig, mapper: DictConfig, model: nn.Module) -> nn.Module:
    """Wrap a detector as configured; see ``with_tta``.

    Args:
        tta: the node ``train.tta``.
        mapper: the node ``dataloader.test.mapper``.
        model: the detector.
    """
    options = {str(key): value for key, value in tta.items() if key != "enabled"}
    return with_tta(model, *largest_size(mapper), instantiate(mapper.image_format), **options)


def with_tta(
    model: nn.Module,
    short_edge: int,
    max_size: int,
    image_format: str,
    scales: Sequence[float] = (0.75, 1.0, 1.25),
    flip: bool = True,
    batch_size: int = 3,
) -> nn.Module:
    """Wrap a detector so that it runs on several views of each image and merges the outputs.

    The wrapper shares the detector's parameters and has its interface: dataset dicts with ``height``,
    ``width`` and ``file_name`` or ``image`` in, outputs out. Call it under ``torch.no_grad()``, as
    detectron2's evaluation does. Time grows with the sum of the squares of ``scales``; ``flip`` doubles it.

    Args:
        model: an R-CNN with boxes and masks, a dense detector (RetinaNet, FCOS), or a semantic segmentor.
        short_edge: short side of a view at scale 1, in pixels.
        max_size: upper limit of the long side of a view at scale 1, in pixels.
        image_format: how the detector's images are read, such as ``RGB``.
        scales: factors > 0 for both; there is one view per scale.
        flip: add a mirrored view per scale.
        batch_size: number of views in a forward pass, >= 1.

    Raises:
        ConfigError: the scales are invalid, or the detector is not supported.
    """
    if not (isinstance(scales, Sequence) and scales) or not all(
        isinstance(scale, (int, float)) and scale > 0 for scale in scales
    ):
        raise ConfigError(
            f"train.tta.scales={scales}: must be a list of factors > 0, such as [0.75, 1.0, 1.25]"
        )
    views = Views([(round(short_edge * s), round(max_size * s)) for s in scales], flip, image_format)
    wrapped: nn.Module
    if isinstance(model, GeneralizedRCNN) and not isinstance(model, PanopticFPN):
        wrapped = GeneralizedRCNNWithTTA(_yacs(model), model, views, batch_size)
    elif isinstance(model, DenseDetector):
        wrapped = DenseDetectorWithTTA(model, views, batch_size)
    elif isinstance(model, SemanticSegmentor):
        wrapped = SemanticSegmentorWithTTA(model, views, batch_size)
    else:
        raise ConfigError(
            f"train.tta.enabled=True: {type(model).__name__} is not supported by test-time augmentation; "
            "GeneralizedRCNN, RetinaNet, FCOS and SemanticSegmentor are; use train.tta.enabled=False"
        )
    return wrapped.train(model.training)  # evaluation restores the mode of the module it is given


def with_tta_results(
    metrics: Mapping[str, Mapping[str, float | None]], augmented: Mapping[str, Mapping[str, float | None]]
) -> dict[str, Mapping[str, float | None]]:
    """Merge results without and with augmentation, named as in detectron2: ``bbox`` and ``bbox_TTA``."""
    return {**metrics, **{f"{task}_TTA": values for task, values in augmented.items()}}


class Views:
    """Makes the views of an image, like detectron2's ``DatasetMapperTTA``, resized as in evaluation.

    Args:
        sizes: (short edge, max size) of each view in pixels.
        flip: add a mirrored view per size.
        image_format: how files are read.
    """

    def __init__(self, sizes: Sequence[tuple[int, int]], flip: bool, image_format: str) -> None:
        self.sizes, self.flip, self.image_format = sizes, flip, image_format

    def __call__(self, entry: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Make the views.

        Args:
            entry: a dataset dict with ``height`` and ``width`` of the original image, and its ``file_name``
                or ``image``, (C, H, W) of any size.

        Returns:
            One dataset dict per view, with ``image`` and the ``transforms`` from the original image to it.
        """
        if "file_name" in entry:  # entry["image"] may be resized already; resizing it again loses detail
            pixels = read_image(entry["file_name"], self.image_format, sys.maxsize)  # the mapper has read it
            detection_utils.check_image_size(dict(entry), pixels)
        else:
            pixels = entry["image"].permute(1, 2, 0).numpy()
        size, given = (entry["height"], entry["width"]), pixels.shape[:2]
        before = T.NoOpTransform() if size == given else T.ResizeTransform(*size, *given)
        views = []
        for short, long in self.sizes:
            resize = T.ResizeShortestEdge(short, long)
            for steps in ([resize], [resize, T.RandomFlip(prob=1.0)])[: 1 + self.flip]:
                view = AugInput(pixels)
                transforms = T.AugmentationList(steps)(view)
                made = {"image": to_tensor(view.image), "transforms": before + transforms}
                views.append({**made, "height": entry["height"], "width": entry["width"]})
        return views


def _yacs(model: GeneralizedRCNN) -> CfgNode:
    """The part of a yacs config that ``GeneralizedRCNNWithTTA`` reads, derived from the detector."""
    heads = model.roi_heads
    if getattr(heads, "keypoint_on", False):
        raise ConfigError(
            "train.tta.enabled=True: detectron2's test-time augmentation does not support keypoints; "
            "use train.tta.enabled=False"
        )
    predictor = heads.box_predictor
    if isinstance(predictor, nn.ModuleList):  # a cascade: its last stage makes the detections
        predictor = predictor[-1]
    return CfgNode(
        {
            "MODEL": {
                "KEYPOINT_ON": False,
                "LOAD_PROPOSALS": model.proposal_generator is None,
                "MASK_ON": heads.mask_on,
                "ROI_HEADS": {"NUM_CLASSES": heads.num_classes, "NMS_THRESH_TEST": predictor.test_nms_thresh},
            },
            "TEST": {"DETECTIONS_PER_IMAGE": predictor.test_topk_per_image},
        }
    )


class _WithTTA(nn.Module):
    """Runs a detector on views of each image; subclasses merge the outputs.

    Args:
        model: scales its output to the entry's ``height`` and ``width``, whatever the size of the view.
        views: makes the views of an image.
        batch_size: number of views in a forward pass.
    """

    def __init__(self, model: nn.Module, views: Views, batch_size: int = 3) -> None:
        super().__init__()
        self.model, self.views, self.batch_size = model, views, batch_size

    def forward(self, batched_inputs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Map dataset dicts to outputs, like the detector."""
        return [self._merge(self._outputs(entry)) for entry in batched_inputs]

    def _outputs(self, entry: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Yield the output for each view, at the original image's size and with mirroring undone."""
        views = self.views(entry)
        for start in range(0, len(views), self.batch_size):
            batch = views[start : start + self.batch_size]
            for view, output in zip(batch, self.model(batch), strict=True):
                mirrored = any(isinstance(t, HFlipTransform) for t in view["transforms"].transforms)
                yield self._mirror(output) if mirrored else output

    def _mirror(self, output: dict[str, Any]) -> dict[str, Any]:
        raise NotImplementedError

    def _merge(self, outputs: Iterator[dict[str, Any]]) -> dict[str, Any]:
        raise NotImplementedError


class DenseDetectorWithTTA(_WithTTA):
    """RetinaNet and FCOS: applies the detector's non-maximum suppression to the boxes of all views."""

    def _mirror(self, output: dict[str, Any]) -> dict[str, Any]:
        instances = output["instances"]
        boxes, width = instances.pred_boxes.tensor, instances.image_size[1]
        boxes[:, [0, 2]] = width - boxes[:, [2, 0]]
        return output

    def _merge(self, outputs: Iterator[dict[str, Any]]) -> dict[str, Any]:
        views = [output["instances"] for output in outputs]
        merged = Instances.cat(views)
        # The boxes of a single view were suppressed before they were clipped: doing it again could drop more
        if len(views) > 1:
            keep = batched_nms(
                merged.pred_boxes.tensor, merged.scores, merged.pred_classes, self.model.test_nms_thresh
            )
            merged = merged[keep[: self.model.max_detections_per_image]]
        return {"instances": merged}


class SemanticSegmentorWithTTA(_WithTTA):
    """Semantic segmentation: gives logits (K, height, width) whose softmax is the mean over all views."""

    def _mirror(self, output: dict[str, Any]) -> dict[str, Any]:
        return {"sem_seg": output["sem_seg"].flip(-1)}

    def _merge(self, outputs: Iterator[dict[str, Any]]) -> dict[str, Any]:
        # Summed one by one, because the maps are large. The sum is not divided by the number of views: a
        # constant per pixel does not change the softmax of logits.
        total = reduce(torch.add, (output["sem_seg"].softmax(dim=0) for output in outputs))
        return {"sem_seg": total.log()}
