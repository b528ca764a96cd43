# The neck of RetinaNet: p3 to p7 for a backbone with strides of 4 to 32
from detectron2.config import LazyCall as L
from detectron2.modeling.backbone.fpn import LastLevelP6P7

from d2timm.modeling.levels import last_name, taken_strides

from .fpn import neck

neck.in_features.finest = 8
# From p5 as in FCOS, not from res5, whose channels the tree does not have
neck.top_block = L(LastLevelP6P7)(
    in_channels="${..out_channels}",
    out_channels="${..out_channels}",
    in_feature=L(last_name)(
        strides=L(taken_strides)(
            features="${....in_features}",
            remaps="${oc.select:....bottom_up.remaps,null}",
            strides="${oc.select:....bottom_up.strides,null}",
        ),
    ),
)
