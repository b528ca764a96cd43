"""Mask R-CNN with DINOv3's ViT-S/16, 36 epochs: a recipe of our own.

Source: weights of https://arxiv.org/abs/2508.10104, whose own detectors use frozen features; otherwise as
    ViTDet's recipe, but shorter
Schedule: 36 epochs of 117,266 images in steps of 64, 65,963 iterations; LR drops where ViTDet's does
Published: none. Not run here.

docs/recipes.md explains every value.
"""

from .mask_rcnn_vitdet_base_100ep import data, dataloader, lr_multiplier, model, optimizer, train

model.backbone.bottom_up.model_name = "vit_small_patch16_dinov3.lvd1689m"
model.backbone.bottom_up.timm_kwargs = dict()

data.settings.coco_2017.max_iter = 65963
data.settings.coco_2017.warmup = 250 / 65963
