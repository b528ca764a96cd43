"""A trained detector as one function of tensors: an image in, its objects out."""

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
from .ops import clip, is_usable, paste
from .preprocess import number, prepare
from .rcnn import detect, mask_scores, propose

__all__ = ["Detector", "NormalizedBackbone", "check_supported"]


class Detector(nn.Module):
    """All that is done to an image at inference, from its pixels to its objects.

    It computes with the modules of the detector and gives what detectron2's own inference gives.

    Args:
        trained: the detector.
        score_threshold: detections that are not above it are dropped, 0 to 1; None: the config's.

    Raises:
        ConfigError: a detector, or images of it, that cannot be exported.
    """

    def __init__(self, trained: Trained, score_threshold: float | None = None) -> None:
        super().__init__()
        model: Any = trained.model
        check_supported(model)
        self.model: Any = model
        self.short_edge, self.max_size = _test_sizes(trained)
        self.flip_channels: bool = model.input_format == "BGR"
        needs: Mapping[str, int] = model.backbone.padding_constraints
        self.square = needs.get("square_size", 0)
        self.divisibility: int = max(needs.get("size_divisibility", model.backbone.size_divisibility), 1)
        heads = getattr(model, "roi_heads", None)
        self.has_masks = bool(getattr(heads, "mask_on", False))
        decider = model if heads is None else _last(heads.box_predictor)
        configured = decider.test_score_thresh
        self.score_threshold: float = configured if score_threshold is None else score_threshold

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Detect the objects of an image.

        Args:
            image: (H, W, 3) uint8, RGB.

        Returns:
            boxes: (N, 4) float32, x1, y1, x2, y2 in pixels of the image.
            classes: (N,) int64.
            scores: (N,) float32, 0 to 1, the highest first.
            masks: (N, H, W) booleans, where the detector has masks.
        """
        rows, columns = image.shape[:2]
        given = image.flip(2) if self.flip_channels else image
        seen = prepare(
            given,
            self.short_edge,
            self.max_size,
            self.model.pixel_mean,
            self.model.pixel_std,
            self.divisibility,
            self.square,
        )
        features = self.model.backbone(seen.images)
        if isinstance(self.model, DenseDetector):
            boxes, scores, classes = detect_densely(self.model, features, self.score_threshold)
        else:
            proposals = propose(self.model.proposal_generator, features, seen.size)
            boxes, scores, classes = detect(
                self.model.roi_heads, features, proposals, seen.size, self.score_threshold
            )
        x, y = seen.scale
        scaled = clip(boxes * torch.stack([x, y, x, y]), (number(rows).float(), number(columns).float()))
        kept = is_usable(scaled).nonzero()[:, 0]
        outputs = (scaled[kept], classes[kept], scores[kept])
        if not self.has_masks:
            return outputs
        masks = mask_scores(self.model.roi_heads, features, boxes[kept], classes[kept])
        return (*outputs, paste(masks, scaled[kept], rows, columns))

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of what ``forward`` gives."""
        names = ("boxes", "classes", "scores")
        return (*names, "masks") if self.has_masks else names


class NormalizedBackbone(nn.Module):
    """The timm backbone alone, its levels in order.

    Args:
        backbone: a ``TimmBackbone``.
    """

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone: Any = backbone

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Levels (N, C_i, ceil(H / stride_i), ceil(W / stride_i)) of normalised images (N, C, H, W)."""
        return tuple(self.backbone(images).values())

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of what ``forward`` gives."""
        return tuple(self.backbone.output_shape())


def check_supported(model: Any) -> None:
    """Raise ConfigError if a detector cannot be exported."""
    heads = getattr(model, "roi_heads", None)
    refused = None
    if isinstance(model, PanopticFPN) or not isinstance(model, (GeneralizedRCNN, DenseDetector)):
        refused = type(model).__name__
    elif getattr(heads, "keypoint_on", False):
        refused = "a detector of keypoints"
    elif heads is not None and not isinstance(heads, StandardROIHeads):
        refused = type(heads).__name__
    elif heads is not None and heads.mask_on and not hasattr(_last(heads.mask_head), "layers"):
        refused = type(heads.mask_head).__name__
    if refused:
        raise ConfigError(
            f"{refused} cannot be exported to .pt2 or .onnx, but Faster, Mask and Cascade R-CNN, RetinaNet "
            "and FCOS; its weights can, to .safetensors, and --part backbone"
        )
    if model.input_format not in ("RGB", "BGR"):
        raise ConfigError(f"model.input_format={model.input_format}: images of three colours are needed")


def _last(stages: Any) -> Any:
    return stages[-1] if isinstance(stages, nn.ModuleList) else stages


def _test_sizes(trained: Trained) -> tuple[int, int]:
    """Short edge and longest side of the images that a detector is tested on."""
    key = "dataloader.test.mapper.augmentations"
    steps = [instantiate(step) for step in trained.cfg.dataloader.test.mapper.augmentations]
    if len(steps) == 1 and isinstance(steps[0], T.ResizeShortestEdge):
        (step,) = steps
        if len(set(step.short_edge_length)) == 1 and step.interp == Image.Resampling.BILINEAR:
            return step.short_edge_length[0], step.max_size
    raise ConfigError(f"{key}: one ResizeShortestEdge of one length, bilinear, can be exported, and no other")
