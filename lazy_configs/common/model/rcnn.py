from detectron2.config import LazyCall as L
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.meta_arch import GeneralizedRCNN
from detectron2.modeling.proposal_generator import RPN, StandardRPNHead

from d2timm.levels import anchor_sizes, anchors_per_cell, level_names, level_strides, taken_strides
from d2timm.pixels import image_format, pixel_mean, pixel_std

_strides = L(taken_strides)(
    features="${model.backbone.in_features}",
    remaps="${model.backbone.bottom_up.remaps}",
    strides="${model.backbone.bottom_up.strides}",
)
_levels = dict(strides=_strides, top_block="${model.backbone.top_block}")
_images = dict(
    model_name="${model.backbone.bottom_up.model_name}",
    in_chans="${model.backbone.bottom_up.in_chans}",
)
_scales = [8.0]  # sides of anchors, in cells: 32 pixels at stride 4, 512 at stride 64

model = L(GeneralizedRCNN)(
    backbone=None,  # the neck
    proposal_generator=L(RPN)(
        in_features=L(level_names)(**_levels),
        head=L(StandardRPNHead)(
            in_channels="${model.backbone.out_channels}",
            num_anchors=L(anchors_per_cell)(
                aspect_ratios="${...anchor_generator.aspect_ratios}",
                scales="${...anchor_generator.sizes.scales}",
            ),
        ),
        anchor_generator=L(DefaultAnchorGenerator)(
            sizes=L(anchor_sizes)(**_levels, scales=_scales),
            aspect_ratios=[0.5, 1.0, 2.0],
            strides=L(level_strides)(**_levels),
            offset=0.0,
        ),
        anchor_matcher=L(Matcher)(thresholds=[0.3, 0.7], labels=[0, -1, 1], allow_low_quality_matches=True),
        box2box_transform=L(Box2BoxTransform)(weights=[1.0, 1.0, 1.0, 1.0]),
        batch_size_per_image=256,
        positive_fraction=0.5,
        pre_nms_topk=[2000, 1000],  # training, test
        post_nms_topk=[1000, 1000],
        nms_thresh=0.7,
    ),
    roi_heads=None,
    pixel_mean=L(pixel_mean)(**_images),
    pixel_std=L(pixel_std)(**_images),
    input_format=L(image_format)(in_chans="${model.backbone.bottom_up.in_chans}"),
)
