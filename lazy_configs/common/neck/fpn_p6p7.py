# The neck of RetinaNet: p3 to p7, where strides of the backbone are 4 to 32
from detectron2.config import LazyCall as L
from detectron2.modeling.backbone.fpn import LastLevelP6P7

from d2timm.modeling.levels import last_name, taken_strides

from .fpn import neck

neck.in_features.finest = 8
# Of p5 as in FCOS, not of res5: channels of res5 are known when the model is made, not in the tree
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
