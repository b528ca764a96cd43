"""Mask R-CNN with XCiT-S12/8, 3x.

Source: El-Nouby et al., https://arxiv.org/abs/2106.09681; XCiT,
    detection/configs/xcit/mask_rcnn_xcit_small_12_p8_3x_coco.py
Schedule: 36 epochs of ceil(117,266 / 16) = 7,330 iterations, 263,880; LR drops after epochs 27 and 33
Published: box AP 47.0, mask AP 42.3 (its README). Not run here.

docs/recipes.md compares every value with the source.
"""

from .mask_rcnn_swin_tiny_3x import data, dataloader, lr_multiplier, model, optimizer, train

model.backbone.bottom_up.model_name = "xcit_small_12_p8_384.fb_dist_in1k"
model.backbone.bottom_up.out_indices = [3, 5, 7, 11]
model.backbone.bottom_up.drop_path_rate = 0.05
model.backbone.bottom_up.norm = "SyncBN"
model.backbone.bottom_up.level_norm = "none"
model.backbone.bottom_up.timm_kwargs = dict()
