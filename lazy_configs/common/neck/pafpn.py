# FPN with a bottom-up path from its finest level (https://arxiv.org/abs/1803.01534)
from d2timm.modeling import PAFPN

from .fpn import neck

neck._target_ = PAFPN
