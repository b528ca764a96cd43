"""A trained detector as one function of tensors: it takes an image and returns its objects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from detectron2.data import transforms as T
from detectron2.modeling import GeneralizedRCNN
from detectron2.modeling.meta_arch import PanopticFPN
from detectron2.modeling.meta_arch.dense_detector import DenseDetector
from detectron2.modeling.roi_heads import StandardROIHeads
from PIL import Image
from torch import Tensor, nn

from ..config.build import instantiate
from ..errors import ConfigError
from ..inference.trained import Trained
from .dense import detect_densely
from .ops import clip_boxes, is_valid, paste_masks
from .preprocess import prepare, scalar
from .rcnn import detect, mask_scores, propose

__all__ = ["Detector", "NormalizedBackbone"]


class Detector(nn.Module):
    """The whole inference of a detector, from the pixels of an image to its objects.

    It uses the detector's modules and returns the same objects as detectron2's own inference.

    Args:
        trained: the detector.
        score_threshold: 0 to 1; detections that do not exceed it are dropped. None: the config's threshold.

    Raises:
        ConfigError: the detector, or its test augmentation, cannot be exported.
    """

    def __init__(self, trained: Trained, score_threshold: float | None = None) -> None:
        super().__init__()
        model: Any = trained.model
        _check_supported(model)
        self.model: Any = model
        self.short_edge, self.max_size = _test_sizes(trained)
        self.flip_channels: bool = model.input_format == "BGR"
        constraints: Mapping[str, int] = model.backbone.padding_constraints
        self.square = constraints.get("square_size", 0)
        self.divisibility: int = max(
            constraints.get("size_divisibility", model.backbone.size_divisibility), 1
        )
        heads = getattr(model, "roi_heads", None)
        self.has_masks = bool(getattr(heads, "mask_on", False))
        owner = model if heads is None else _last(heads.box_predictor)
        configured = owner.test_score_thresh
        self.score_threshold: float = configured if score_threshold is None else score_threshold

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Detect the objects in an image.

        Args:
            image: (H, W, 3) uint8, RGB.

        Returns:
            boxes: (N, 4) float32, x1, y1, x2, y2 in pixels of the image.
            classes: (N,) int64.
            scores: (N,) float32, 0 to 1, highest first.
            masks: (N, H, W) booleans, if the detector has masks.
        """
        rows, columns = image.shape[:2]
        prepared = prepare(
            image.flip(2) if self.flip_channels else image,
            self.short_edge,
            self.max_size,
            self.model.pixel_mean,
            self.model.pixel_std,
            self.divisibility,
            self.square,
        )
        features = self.model.backbone(prepared.images)
        if isinstance(self.model, DenseDetector):
            boxes, scores, classes = detect_densely(self.model, features, self.score_threshold)
        else:
            proposals = propose(self.model.proposal_generator, features, prepared.size)
            boxes, scores, classes = detect(
                self.model.roi_heads, features, proposals, prepared.size, self.score_threshold
            )
        x, y = prepared.scale
        size = (scalar(rows).float(), scalar(columns).float())
        scaled = clip_boxes(boxes * torch.stack([x, y, x, y]), size)
        valid = is_valid(scaled).nonzero()[:, 0]
        outputs = (scaled[valid], classes[valid], scores[valid])
        if not self.has_masks:
            return outputs
        masks = mask_scores(self.model.roi_heads, features, boxes[valid], classes[valid])
        return (*outputs, paste_masks(masks, scaled[valid], rows, columns))

    @property
    def output_names(self) -> tuple[str, ...]:
        """The names of the outputs of ``forward``."""
        names = ("boxes", "classes", "scores")
        return (*names, "masks") if self.has_masks else names


class NormalizedBackbone(nn.Module):
    """The timm backbone alone: takes normalised images and returns the levels as a tuple.

    Args:
        backbone: a ``TimmBackbone``.
    """

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone: Any = backbone

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Map images (N, C, H, W) to levels (N, C_i, ceil(H / stride_i), ceil(W / stride_i))."""
        return tuple(self.backbone(images).values())

    @property
    def output_names(self) -> tuple[str, ...]:
        """The names of the outputs of ``forward``."""
        return tuple(self.backbone.output_shape())


def _check_supported(model: Any) -> None:
    """Raise ConfigError if a detector cannot be exported."""
    heads = getattr(model, "roi_heads", None)
    unsupported = None
    if isinstance(model, PanopticFPN) or not isinstance(model, (GeneralizedRCNN, DenseDetector)):
        unsupported = type(model).__name__
    elif getattr(heads, "keypoint_on", False):
        unsupported = "a keypoint detector"
    elif heads is not None and not isinstance(heads, StandardROIHeads):
        unsupported = type(heads).__name__
    elif heads is not None and heads.mask_on and not hasattr(_last(heads.mask_head), "layers"):
        unsupported = type(heads.mask_head).__name__
    if unsupported:
        raise ConfigError(
            f"{unsupported} cannot be exported to .pt2 or .onnx; Faster, Mask and Cascade R-CNN, RetinaNet "
            "and FCOS can. Export its weights to .safetensors, or its backbone with --part backbone"
        )
    if model.input_format not in ("RGB", "BGR"):
        raise ConfigError(f"model.input_format={model.input_format}: only RGB and BGR can be exported")


def _last(stages: Any) -> Any:
    return stages[-1] if isinstance(stages, nn.ModuleList) else stages


def _test_sizes(trained: Trained) -> tuple[int, int]:
    """The short edge and the longest side of test images, in pixels."""
    key = "dataloader.test.mapper.augmentations"
    steps = [instantiate(step) for step in trained.cfg.dataloader.test.mapper.augmentations]
    if len(steps) == 1 and isinstance(steps[0], T.ResizeShortestEdge):
        (step,) = steps
        if len(set(step.short_edge_length)) == 1 and step.interp == Image.Resampling.BILINEAR:
            return step.short_edge_length[0], step.max_size
    raise ConfigError(f"{key}: only a single bilinear ResizeShortestEdge with one length can be exported")
