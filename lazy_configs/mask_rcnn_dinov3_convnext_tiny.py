"""Mask R-CNN with DINOv3's ConvNeXt-T, 3x: a recipe of our own.

Source: weights of https://arxiv.org/abs/2508.10104, whose own detectors use frozen features; otherwise as
    ConvNeXt's recipe
Schedule: 36 epochs of ceil(117,266 / 16) = 7,330 iterations, 263,880; LR drops after epochs 27 and 33
Published: none. Not run here.

docs/recipes.md explains every value.
"""

from .mask_rcnn_convnext_tiny_3x import data, dataloader, lr_multiplier, model, optimizer, train

model.backbone.bottom_up.model_name = "convnext_tiny.dinov3_lvd1689m"
