from detectron2.config import LazyCall as L
from detectron2.layers import ShapeSpec
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.roi_heads import FastRCNNConvFCHead, FastRCNNOutputLayers

from d2timm.data import num_classes
from d2timm.modeling import StandardROIHeads
from d2timm.modeling.levels import last, level_names, pooler_scales

from ..derived import strides

roi_heads = L(StandardROIHeads)(
    num_classes=L(num_classes)(data="${data}"),
    batch_size_per_image="${data.settings.${data.name}.rois_per_image}",
    positive_fraction=0.25,
    proposal_matcher=L(Matcher)(thresholds=[0.5], labels=[0, 1], allow_low_quality_matches=False),
    box_in_features=L(level_names)(strides=strides()),
    box_pooler=L(ROIPooler)(
        output_size=7,
        scales=L(pooler_scales)(strides=strides()),
        sampling_ratio=0,
        pooler_type="ROIAlignV2",
    ),
    box_head=L(FastRCNNConvFCHead)(
        input_shape=L(ShapeSpec)(
            channels="${model.backbone.out_channels}",
            height="${model.roi_heads.box_pooler.output_size}",
            width="${model.roi_heads.box_pooler.output_size}",
        ),
        conv_dims=[],
        fc_dims=[1024, 1024],
        conv_norm="",
    ),
    box_predictor=L(FastRCNNOutputLayers)(
        input_shape=L(ShapeSpec)(channels=L(last)(dims="${model.roi_heads.box_head.fc_dims}")),
        box2box_transform=L(Box2BoxTransform)(weights=[10, 10, 5, 5]),
        num_classes="${model.roi_heads.num_classes}",
        cls_agnostic_bbox_reg=False,
        smooth_l1_beta=0.0,  # L1 loss
        test_score_thresh=0.05,
        test_nms_thresh=0.5,
        test_topk_per_image="${data.settings.${data.name}.detections_per_image}",
    ),
    mask_in_features=None,  # no masks
    keypoint_in_features=None,  # no keypoints
)
