# The Cascade Mask R-CNN heads of ViTDet
from ..cascade import cascade
from .mask_4conv1fc import roi_heads

cascade(roi_heads)
