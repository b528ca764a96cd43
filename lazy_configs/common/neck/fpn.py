from detectron2.config import LazyCall as L
from detectron2.modeling.backbone.fpn import FPN, LastLevelMaxPool

neck = L(FPN)(
    bottom_up=None,  # the backbone
    in_features="${oc.select:.bottom_up.remaps,null}",
    out_channels=256,
    norm="",
    top_block=L(LastLevelMaxPool)(),
    fuse_type="sum",
)
