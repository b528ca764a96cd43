# PointRend (https://arxiv.org/abs/1912.08193): masks refined at uncertain points, from the finest level
from detectron2.config import LazyCall as L

from d2timm.modeling import named_shapes, point_rend_mask_head
from d2timm.modeling.levels import finest_stride, level_names

from ..derived import strides
from .box import roi_heads

roi_heads.mask_in_features = L(level_names)(strides=[L(finest_stride)(strides=strides())])
roi_heads.mask_pooler = None  # the head pools features itself
roi_heads.mask_head = L(point_rend_mask_head)(
    input_shape=L(named_shapes)(
        channels="${model.backbone.out_channels}",
        strides="${model.roi_heads.mask_in_features.strides}",
    ),
    num_classes="${..num_classes}",
    pooler_resolution=14,
    conv_dim="${model.backbone.out_channels}",
    fc_dim=1024,
    num_fc=2,
    coarse_resolution=7,
    point_fc_dim=256,
    point_num_fc=3,
    coarse_pred_each_layer=True,
    train_num_points=196,
    oversample_ratio=3,
    importance_sample_ratio=0.75,
    subdivision_steps=5,
    subdivision_num_points=784,
)
