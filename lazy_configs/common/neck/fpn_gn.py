# FPN with group norm, which does not depend on the batch size of a GPU (https://arxiv.org/abs/1803.08494)
from .fpn import neck

neck.norm = "GN"
