from ..cascade import cascade
from .box import roi_heads

cascade(roi_heads)
