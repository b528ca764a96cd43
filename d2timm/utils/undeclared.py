"""Types and ranges of arguments that other packages do not declare, of the classes that recipes name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, TypeAlias

from .bounds import Bounds

__all__ = ["UNDECLARED"]

Count: TypeAlias = Annotated[int, Bounds(at_least=0)]
Positive: TypeAlias = Annotated[int, Bounds(at_least=1)]
PositiveNumber: TypeAlias = Annotated[float, Bounds(above=0)]
NotNegative: TypeAlias = Annotated[float, Bounds(at_least=0)]
Share: TypeAlias = Annotated[float, Bounds(at_least=0, at_most=1)]
Inside: TypeAlias = Annotated[float, Bounds(above=0, below=1)]
TopK: TypeAlias = Annotated[tuple[float, float], Bounds(at_least=1)]  # in training and evaluation
PerLevel: TypeAlias = Sequence[PositiveNumber] | Sequence[Sequence[PositiveNumber]]

_PIXELS = {"pixel_mean": Sequence[float], "pixel_std": Sequence[PositiveNumber]}
_THRESHOLDS = {"test_nms_thresh": Share, "test_score_thresh": Share, "smooth_l1_beta": NotNegative}

#: Class, by the module that defines it -> argument -> type and range; those of its base classes count as well
UNDECLARED: dict[str, dict[str, Any]] = {
    "detectron2.data.transforms.augmentation_impl.FixedSizeCrop": {"crop_size": Sequence[Positive]},
    "detectron2.data.transforms.augmentation_impl.RandomApply": {"prob": Share},
    "detectron2.data.transforms.augmentation_impl.RandomCrop": {"crop_size": Sequence[PositiveNumber]},
    "detectron2.data.transforms.augmentation_impl.RandomFlip": {"prob": Share},
    "detectron2.data.transforms.augmentation_impl.ResizeScale": {
        **{"min_scale": PositiveNumber, "max_scale": PositiveNumber},
        **{"target_height": Positive, "target_width": Positive},
    },
    "detectron2.data.transforms.augmentation_impl.ResizeShortestEdge": {
        "short_edge_length": Count | Sequence[Count],  # 0: images keep their size
        "max_size": Positive,
    },
    "detectron2.modeling.anchor_generator.DefaultAnchorGenerator": {
        **{"aspect_ratios": PerLevel, "sizes": PerLevel, "strides": Sequence[Positive]},
        "offset": Annotated[float, Bounds(at_least=0, below=1)],
    },
    "detectron2.modeling.backbone.fpn.FPN": {
        **{"in_features": Sequence[str], "out_channels": Positive},
        "top_block": Callable[..., Any] | None,
    },
    "detectron2.modeling.box_regression.Box2BoxTransform": {
        "weights": tuple[PositiveNumber, PositiveNumber, PositiveNumber, PositiveNumber]
    },
    "detectron2.modeling.matcher.Matcher": {
        "thresholds": Sequence[Share],
        "labels": Sequence[Literal[-1, 0, 1]],
    },
    "detectron2.modeling.meta_arch.dense_detector.DenseDetector": _PIXELS,
    "detectron2.modeling.meta_arch.rcnn.GeneralizedRCNN": _PIXELS,
    "detectron2.modeling.meta_arch.retinanet.RetinaNet": {
        **{**_THRESHOLDS, "focal_loss_alpha": float, "focal_loss_gamma": NotNegative},
        **{"test_topk_candidates": Positive, "max_detections_per_image": Positive},
        "head_in_features": Sequence[str],
    },
    "detectron2.modeling.meta_arch.retinanet.RetinaNetHead": {
        "conv_dims": Sequence[Positive],
        "prior_prob": Inside,
    },
    "detectron2.modeling.meta_arch.semantic_seg.SemSegFPNHead": {
        **{"conv_dims": Positive, "common_stride": Positive, "loss_weight": NotNegative},
    },
    "detectron2.modeling.meta_arch.semantic_seg.SemanticSegmentor": _PIXELS,
    "detectron2.modeling.poolers.ROIPooler": {
        **{"output_size": Positive | Sequence[Positive], "scales": Sequence[PositiveNumber]},
        "sampling_ratio": Count,
    },
    "detectron2.modeling.proposal_generator.rpn.RPN": {
        **{"in_features": Sequence[str], "pre_nms_topk": TopK, "post_nms_topk": TopK},
        **{"batch_size_per_image": Positive, "positive_fraction": Share},
        **{"nms_thresh": Share, "smooth_l1_beta": NotNegative},
    },
    "detectron2.modeling.proposal_generator.rpn.StandardRPNHead": {"conv_dims": Sequence[int]},
    "detectron2.modeling.roi_heads.box_head.FastRCNNConvFCHead": {
        "conv_dims": Sequence[Positive],
        "fc_dims": Sequence[Positive],
    },
    "detectron2.modeling.roi_heads.fast_rcnn.FastRCNNOutputLayers": _THRESHOLDS,
    "detectron2.modeling.roi_heads.keypoint_head.BaseKeypointRCNNHead": {"loss_weight": NotNegative},
    "detectron2.modeling.roi_heads.keypoint_head.KRCNNConvDeconvUpsampleHead": {
        "conv_dims": Sequence[Positive]
    },
    "detectron2.modeling.roi_heads.mask_head.MaskRCNNConvUpsampleHead": {"conv_dims": Sequence[Positive]},
    "detectron2.modeling.roi_heads.roi_heads.ROIHeads": {
        "batch_size_per_image": Positive,
        "positive_fraction": Share,
    },
    "detectron2.solver.lr_scheduler.WarmupParamScheduler": {
        **{"warmup_factor": Share, "warmup_length": Share},
        "warmup_method": Literal["linear", "constant"],
    },
    "fvcore.common.param_scheduler.CosineParamScheduler": {
        "start_value": NotNegative,
        "end_value": NotNegative,
    },
    "fvcore.common.param_scheduler.LinearParamScheduler": {
        "start_value": NotNegative,
        "end_value": NotNegative,
    },
    "fvcore.common.param_scheduler.MultiStepParamScheduler": {"values": Sequence[NotNegative]},
}
