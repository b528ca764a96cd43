"""Mask R-CNN with Swin-T, 3x.

Source: Liu et al., https://arxiv.org/abs/2103.14030; Swin-Transformer-Object-Detection,
    configs/swin/mask_rcnn_swin_tiny_patch4_window7_mstrain_480-800_adamw_3x_coco.py
Schedule: 36 epochs of ceil(117,266 / 16) = 7,330 iterations, 263,880; LR drops after epochs 27 and 33
Published: box AP 46.0, mask AP 41.6 (its README). Not run here.

docs/recipes.md compares every value with the source.
"""

from .mask_rcnn_swin_tiny_1x import data, dataloader, lr_multiplier, model, optimizer, train

model.backbone.bottom_up.drop_path_rate = 0.2

data.settings.coco_2017.max_iter = 263880
data.settings.coco_2017.warmup = 500 / 263880
lr_multiplier.scheduler.milestones = [27, 33, 36]
