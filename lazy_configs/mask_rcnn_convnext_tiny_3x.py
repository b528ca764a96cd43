"""Mask R-CNN with ConvNeXt-T, 3x.

Source: Liu et al., https://arxiv.org/abs/2201.03545; ConvNeXt, object_detection/
    configs/convnext/mask_rcnn_convnext_tiny_patch4_window7_mstrain_480-800_adamw_3x_coco_in1k.py
Schedule: 36 epochs of ceil(117,266 / 16) = 7,330 iterations, 263,880; LR drops after epochs 27 and 33
Published: box AP 46.2, mask AP 41.7 (its README). Not run here.

docs/recipes.md compares every value with the source.
"""

from .mask_rcnn_swin_tiny_3x import data, dataloader, lr_multiplier, model, optimizer, train

model.backbone.bottom_up.model_name = "convnext_tiny.fb_in1k"
model.backbone.bottom_up.drop_path_rate = 0.4
model.backbone.bottom_up.timm_kwargs = dict()

optimizer.params.layer_decay = 0.95
optimizer.params.num_layers = 6  # in the third stage, three blocks per layer
optimizer.params.decay_biases = False
