# FPN and a path from its finest level back up (https://arxiv.org/abs/1803.01534)
from detectron2.config import LazyCall as L
from detectron2.modeling.backbone.fpn import LastLevelMaxPool

from d2timm.necks import PAFPN

neck = L(PAFPN)(
    bottom_up=None,  # the backbone
    in_features="${oc.select:.bottom_up.remaps,null}",
    out_channels=256,
    norm="",
    top_block=L(LastLevelMaxPool)(),
    fuse_type="sum",
)
