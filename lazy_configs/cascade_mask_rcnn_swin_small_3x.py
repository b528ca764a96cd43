"""Cascade Mask R-CNN with Swin-S, 3x.

Source: Liu et al., https://arxiv.org/abs/2103.14030; Swin-Transformer-Object-Detection,
    configs/swin/cascade_mask_rcnn_swin_small_patch4_window7_mstrain_480-800_giou_4conv1f_adamw_3x_coco.py
Schedule: 36 epochs of ceil(117,266 / 16) = 7,330 iterations, 263,880; LR drops after epochs 27 and 33
Published: box AP 51.9, mask AP 45.0 (its README; 51.8 and 44.7 in the paper). Not run here.

docs/recipes.md compares every value with the source.
"""

from .common.roi_heads.cascade_mask_mmdet import roi_heads
from .mask_rcnn_swin_tiny_3x import data, dataloader, lr_multiplier, model, optimizer, train

model.backbone.bottom_up.model_name = "swin_small_patch4_window7_224.ms_in1k"
model.proposal_generator.post_nms_topk = [2000, 1000]
model.proposal_generator.smooth_l1_beta = 1 / 9
model.proposal_generator.anchor_boundary_thresh = 0
model.roi_heads = roi_heads
