# Keypoint R-CNN (Mask R-CNN, https://arxiv.org/abs/1703.06870, section 5)
from detectron2.config import LazyCall as L
from detectron2.layers import ShapeSpec
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.roi_heads import KRCNNConvDeconvUpsampleHead

from d2timm.data import num_keypoints

from .box import roi_heads

roi_heads.keypoint_in_features = "${.box_in_features}"
roi_heads.keypoint_pooler = L(ROIPooler)(
    output_size=14,
    scales="${..box_pooler.scales}",
    sampling_ratio=0,
    pooler_type="ROIAlignV2",
)
roi_heads.keypoint_head = L(KRCNNConvDeconvUpsampleHead)(
    input_shape=L(ShapeSpec)(
        channels="${model.backbone.out_channels}",
        height="${...keypoint_pooler.output_size}",
        width="${...keypoint_pooler.output_size}",
    ),
    num_keypoints=L(num_keypoints)(data="${data}"),
    conv_dims=[512] * 8,
    loss_weight=1.0,
    loss_normalizer="visible",
)
roi_heads.box_predictor.smooth_l1_beta = 0.5  # with L1 loss, keypoints are less accurate
