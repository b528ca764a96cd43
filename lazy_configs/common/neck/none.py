# One level instead of a pyramid: the output of stride 16, as in R-CNNs before FPN
from detectron2.config import LazyCall as L

from d2timm.modeling import SingleLevel
from d2timm.modeling.levels import nearest_feature

neck = L(SingleLevel)(
    bottom_up=None,  # the backbone
    in_features=L(nearest_feature)(
        remaps="${oc.select:..bottom_up.remaps,null}",
        strides="${oc.select:..bottom_up.strides,null}",
        stride=16,
    ),
    out_channels=256,
    norm="",
)
