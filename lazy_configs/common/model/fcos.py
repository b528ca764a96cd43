# FCOS (https://arxiv.org/abs/1904.01355), with the improvements of https://arxiv.org/abs/2006.09214
from detectron2.config import LazyCall as L
from detectron2.modeling.meta_arch.fcos import FCOSHead

from d2timm.data import num_classes
from d2timm.modeling import FCOS, level_shapes
from d2timm.modeling.levels import level_names

from ..derived import images, levels

_levels = levels(finest=8)  # from p3, as in the paper

model = L(FCOS)(
    backbone=None,  # the neck
    head=L(FCOSHead)(
        input_shape=L(level_shapes)(channels="${model.backbone.out_channels}", **_levels),
        num_classes="${..num_classes}",
        conv_dims=["${model.backbone.out_channels}"] * 4,
        norm="GN",
        prior_prob=0.01,
    ),
    head_in_features=L(level_names)(**_levels),
    num_classes=L(num_classes)(data="${data}"),
    center_sampling_radius=1.5,  # in cells of the level
    focal_loss_alpha=0.25,
    focal_loss_gamma=2.0,
    test_score_thresh=0.2,  # threshold of sqrt(score * centerness)
    test_topk_candidates=1000,
    test_nms_thresh=0.6,
    max_detections_per_image="${data.settings.${data.name}.detections_per_image}",
    **images(),
)
