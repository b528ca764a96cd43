from detectron2.config import LazyCall as L
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.meta_arch import RetinaNet
from detectron2.modeling.meta_arch.retinanet import RetinaNetHead

from d2timm.data import num_classes
from d2timm.modeling import level_shapes
from d2timm.modeling.levels import anchor_sizes, anchors_per_cell, level_names, level_strides

from ..derived import images, levels

_levels = levels(
    finest=8
)  # from p3, as in the paper: a head on p2 costs three times as much as all the others
_scales = [4.0 * 2 ** (k / 3) for k in range(3)]  # sides of anchors, in cells: 32 pixels and more at stride 8

model = L(RetinaNet)(
    backbone=None,  # the neck
    head=L(RetinaNetHead)(
        input_shape=L(level_shapes)(channels="${model.backbone.out_channels}", **_levels),
        num_classes="${..num_classes}",
        num_anchors=L(anchors_per_cell)(
            aspect_ratios="${...anchor_generator.aspect_ratios}",
            sizes="${...anchor_generator.sizes}",
        ),
        conv_dims=["${model.backbone.out_channels}"] * 4,
        norm="",
        prior_prob=0.01,
    ),
    head_in_features=L(level_names)(**_levels),
    anchor_generator=L(DefaultAnchorGenerator)(
        sizes=L(anchor_sizes)(**_levels, scales=_scales, finest=8),
        aspect_ratios=[0.5, 1.0, 2.0],
        strides=L(level_strides)(**_levels),
        offset=0.0,
    ),
    box2box_transform=L(Box2BoxTransform)(weights=[1.0, 1.0, 1.0, 1.0]),
    anchor_matcher=L(Matcher)(thresholds=[0.4, 0.5], labels=[0, -1, 1], allow_low_quality_matches=True),
    num_classes=L(num_classes)(data="${data}"),
    focal_loss_alpha=0.25,
    focal_loss_gamma=2.0,
    box_reg_loss_type="smooth_l1",
    smooth_l1_beta=0.0,  # L1 loss
    test_score_thresh=0.05,
    test_topk_candidates=1000,
    test_nms_thresh=0.5,
    max_detections_per_image="${data.settings.${data.name}.detections_per_image}",
    **images(),
)
