from detectron2.config import LazyCall as L
from detectron2.layers import ShapeSpec
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.roi_heads import MaskRCNNConvUpsampleHead

from .box import roi_heads

roi_heads.mask_in_features = "${.box_in_features}"
roi_heads.mask_pooler = L(ROIPooler)(
    output_size=14,
    scales="${..box_pooler.scales}",
    sampling_ratio=0,
    pooler_type="ROIAlignV2",
)
roi_heads.mask_head = L(MaskRCNNConvUpsampleHead)(
    input_shape=L(ShapeSpec)(
        channels="${model.backbone.out_channels}",
        height="${model.roi_heads.mask_pooler.output_size}",
        width="${model.roi_heads.mask_pooler.output_size}",
    ),
    num_classes="${model.roi_heads.num_classes}",
    conv_dims=[256, 256, 256, 256, 256],  # four convolutions and the deconvolution
    conv_norm="",
)
