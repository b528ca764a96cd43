from ..cascade import cascade
from .mask import roi_heads

cascade(roi_heads)
