"""Mask R-CNN with EfficientNetV2-S, 3x: a recipe of our own.

Source: weights of https://arxiv.org/abs/2104.00298, which has no detector; otherwise as Swin-T's recipe, with
    frozen batch norms as in detectron2
Schedule: 36 epochs of ceil(117,266 / 16) = 7,330 iterations, 263,880; LR drops after epochs 27 and 33
Published: none. Not run here.

docs/recipes.md explains every value.
"""

from .mask_rcnn_swin_tiny_3x import data, dataloader, lr_multiplier, model, optimizer, train

model.backbone.bottom_up.model_name = "tf_efficientnetv2_s.in21k_ft_in1k"
model.backbone.bottom_up.norm = "FrozenBN"
model.backbone.bottom_up.level_norm = "resampled"
model.backbone.bottom_up.timm_kwargs = dict()
