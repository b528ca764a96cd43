from detectron2.config import LazyCall as L
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.meta_arch import GeneralizedRCNN
from detectron2.modeling.proposal_generator import RPN, StandardRPNHead

from d2timm.modeling.levels import anchor_sizes, anchors_per_cell, level_names, level_strides

from ..derived import images, levels

_scales = [8.0]  # sides of anchors, in cells: 32 pixels at stride 4, 512 at stride 64

model = L(GeneralizedRCNN)(
    backbone=None,  # the neck
    proposal_generator=L(RPN)(
        in_features=L(level_names)(**levels()),
        head=L(StandardRPNHead)(
            in_channels="${model.backbone.out_channels}",
            num_anchors=L(anchors_per_cell)(
                aspect_ratios="${...anchor_generator.aspect_ratios}",
                sizes="${...anchor_generator.sizes}",
            ),
            conv_dims=[-1],  # -1: the width of the neck; ViTDet has two such layers
        ),
        anchor_generator=L(DefaultAnchorGenerator)(
            sizes=L(anchor_sizes)(**levels(), scales=_scales, finest=4),
            aspect_ratios=[0.5, 1.0, 2.0],
            strides=L(level_strides)(**levels()),
            offset=0.0,
        ),
        anchor_matcher=L(Matcher)(thresholds=[0.3, 0.7], labels=[0, -1, 1], allow_low_quality_matches=True),
        box2box_transform=L(Box2BoxTransform)(weights=[1.0, 1.0, 1.0, 1.0]),
        anchor_boundary_thresh=-1,  # 0: training ignores anchors that extend beyond the image
        smooth_l1_beta=0.0,  # L1 loss
        batch_size_per_image=256,
        positive_fraction=0.5,
        pre_nms_topk=[2000, 1000],  # training, test
        post_nms_topk=[1000, 1000],
        nms_thresh=0.7,
    ),
    roi_heads=None,
    **images(),
)
