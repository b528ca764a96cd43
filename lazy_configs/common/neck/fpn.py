from detectron2.config import LazyCall as L
from detectron2.modeling.backbone.fpn import FPN, LastLevelMaxPool

from d2timm.modeling.levels import coarse_features

neck = L(FPN)(
    bottom_up=None,  # the backbone
    in_features=L(coarse_features)(
        remaps="${oc.select:..bottom_up.remaps,null}",
        strides="${oc.select:..bottom_up.strides,null}",
        # dense detectors start at a coarser level; the others use all levels
        finest="${oc.select:model.head.input_shape.strides.finest,1}",
    ),
    out_channels=256,
    norm="",
    top_block=L(LastLevelMaxPool)(),
    fuse_type="sum",
)
