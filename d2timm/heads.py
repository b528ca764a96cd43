"""ROI heads that detectron2 makes of a yacs config only, by arguments."""

from __future__ import annotations

from collections.abc import Mapping

from detectron2.config import get_cfg
from detectron2.layers import ShapeSpec
from detectron2.projects.point_rend import PointRendMaskHead, add_pointrend_config

from .errors import ConfigError

__all__ = ["point_rend_mask_head"]


def point_rend_mask_head(
    input_shape: Mapping[str, ShapeSpec],
    num_classes: int,
    *,
    pooler_resolution: int = 14,
    conv_dim: int = 256,
    fc_dim: int = 1024,
    num_fc: int = 2,
    coarse_resolution: int = 7,
    point_fc_dim: int = 256,
    point_num_fc: int = 3,
    coarse_pred_each_layer: bool = True,
    train_num_points: int = 196,
    oversample_ratio: float = 3,
    importance_sample_ratio: float = 0.75,
    subdivision_steps: int = 5,
    subdivision_num_points: int = 784,
) -> PointRendMaskHead:
    """PointRend's mask head (Kirillov et al., CVPR 2020, https://arxiv.org/abs/1912.08193).

    A coarse mask, and then points of it, those that are the least certain first, from the features of
    finer levels. It pools for itself: ``mask_pooler`` of the ROI heads is None. In training it takes true
    masks as bitmaps (``instance_mask_format="bitmask"`` of detectron2's mapper).

    Args:
        input_shape: name -> channels and stride of the levels that both parts use, usually the finest alone.
        num_classes: of objects.
        pooler_resolution: side of the grid that is pooled for the coarse mask, in cells.
        conv_dim: width of the convolution of the coarse head, <= channels of all levels together.
        fc_dim: width of the fully connected layers of the coarse head.
        num_fc: how many those are, >= 1.
        coarse_resolution: side of the coarse mask, in cells.
        point_fc_dim: width of the layers of the point head.
        point_num_fc: how many those are.
        coarse_pred_each_layer: give the coarse mask to each layer of the point head, not to the first alone.
        train_num_points: points of an object in training.
        oversample_ratio: how many times that are drawn to choose from, >= 1 (the paper's k).
        importance_sample_ratio: share of points chosen for being uncertain, 0 to 1 (the paper's beta).
        subdivision_steps: how often a mask is doubled at inference.
        subdivision_num_points: points of an object that are computed anew at each step.

    Raises:
        ConfigError: a convolution that is wider than what it is given.
    """
    channels = sum(shape.channels for shape in input_shape.values())
    if conv_dim > channels:
        raise ConfigError(
            f"model.roi_heads.mask_head.conv_dim={conv_dim}: at most {channels}, the channels of "
            f"{', '.join(input_shape)}"
        )
    cfg = get_cfg()
    add_pointrend_config(cfg)
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = num_classes

    coarse = cfg.MODEL.ROI_MASK_HEAD
    coarse.IN_FEATURES = tuple(input_shape)
    coarse.POOLER_RESOLUTION = pooler_resolution
    coarse.CONV_DIM = conv_dim
    coarse.FC_DIM, coarse.NUM_FC = fc_dim, num_fc
    coarse.OUTPUT_SIDE_RESOLUTION = coarse_resolution
    coarse.POINT_HEAD_ON = True

    point = cfg.MODEL.POINT_HEAD
    point.NUM_CLASSES = num_classes
    point.IN_FEATURES = tuple(input_shape)
    point.FC_DIM, point.NUM_FC = point_fc_dim, point_num_fc
    point.COARSE_PRED_EACH_LAYER = coarse_pred_each_layer
    point.TRAIN_NUM_POINTS = train_num_points
    point.OVERSAMPLE_RATIO = oversample_ratio
    point.IMPORTANCE_SAMPLE_RATIO = importance_sample_ratio
    point.SUBDIVISION_STEPS = subdivision_steps
    point.SUBDIVISION_NUM_POINTS = subdivision_num_points
    return PointRendMaskHead(cfg, input_shape)
