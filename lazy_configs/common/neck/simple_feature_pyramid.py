# ViTDet's neck: all levels from one output, as of a plain transformer (https://arxiv.org/abs/2203.16527)
from detectron2.config import LazyCall as L
from detectron2.modeling.backbone.fpn import LastLevelMaxPool

from d2timm.modeling import SimpleFeaturePyramid
from d2timm.modeling.levels import nearest_feature, pyramid_scales

_outputs = dict(
    remaps="${oc.select:..bottom_up.remaps,null}",
    strides="${oc.select:..bottom_up.strides,null}",
)

neck = L(SimpleFeaturePyramid)(
    bottom_up=None,  # the backbone
    in_features=L(nearest_feature)(**_outputs, stride=16),
    out_channels=256,
    scale_factors=L(pyramid_scales)(
        features="${..in_features}",
        **_outputs,
        finest="${oc.select:model.head.input_shape.strides.finest,1}",
    ),
    norm="LN",
    top_block=L(LastLevelMaxPool)(),
    square_pad=0,  # side of padded images in pixels, 1024 in ViTDet; 0: the least padding
)
