# Semantic FPN (https://arxiv.org/abs/1901.02446): a class for each pixel, without objects
from detectron2.config import LazyCall as L
from detectron2.modeling.meta_arch.semantic_seg import SemSegFPNHead

from d2timm.data import num_semantic_classes
from d2timm.modeling import SemanticSegmentor, named_shapes
from d2timm.modeling.levels import finest_stride, fused_top_block

from ..derived import images, strides

model = L(SemanticSegmentor)(
    backbone=None,  # the neck
    sem_seg_head=L(SemSegFPNHead)(
        # p2 to p5, as in the paper: the head needs grids that are exact halves, which coarser levels are only
        # in necks that fuse them
        input_shape=L(named_shapes)(
            channels="${model.backbone.out_channels}",
            strides=strides(),
            top_block=L(fused_top_block)(
                top_block="${oc.select:model.backbone.top_block,null}",
                num_layers="${oc.select:model.backbone.num_layers,null}",
            ),
        ),
        num_classes=L(num_semantic_classes)(data="${data}"),
        conv_dims=128,
        common_stride=L(finest_stride)(strides=strides()),
        loss_weight=1.0,
        norm="GN",
        ignore_value=255,
    ),
    **images(),
)
