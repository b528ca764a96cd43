# EfficientDet's neck: repeated fusion of all levels, top-down and bottom-up (https://arxiv.org/abs/1911.09070)
from d2timm.modeling import BiFPN

from .fpn import neck

del neck.fuse_type
neck._target_ = BiFPN
neck.norm = "GN"
neck.num_layers = 3
