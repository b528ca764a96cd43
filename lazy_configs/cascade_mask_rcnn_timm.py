# Cascade Mask R-CNN: Mask R-CNN that refines its boxes in three stages
from .common.roi_heads.cascade_mask import roi_heads
from .mask_rcnn_timm import data, dataloader, lr_multiplier, model, optimizer, train

model.roi_heads = roi_heads
