# With group norm, which does not depend on how many images a GPU has (https://arxiv.org/abs/1803.08494)
from .fpn import neck

neck.norm = "GN"
