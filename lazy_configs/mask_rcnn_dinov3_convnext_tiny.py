"""Mask R-CNN with DINOv3's ConvNeXt-T, 3x: a recipe of our own.

Source: weights of https://arxiv.org/abs/2508.10104, whose detectors are others (on frozen features); this
    follows ConvNeXt's own in all else
Schedule: 36 epochs of ceil(117,266 / 16) = 7,330 iterations, 263,880; the rate falls after epochs 27 and 33
Published: none. Not run here.

Line by line: docs/recipes.md
"""

from .mask_rcnn_convnext_tiny_3x import data, dataloader, lr_multiplier, model, optimizer, train

model.backbone.bottom_up.model_name = "convnext_tiny.dinov3_lvd1689m"
