"""Mask R-CNN with Swin-T, 1x.

Source: Liu et al., https://arxiv.org/abs/2103.14030; Swin-Transformer-Object-Detection,
    configs/swin/mask_rcnn_swin_tiny_patch4_window7_mstrain_480-800_adamw_1x_coco.py
Schedule: 12 epochs of ceil(117,266 / 16) = 7,330 iterations, 87,960; LR drops after epochs 8 and 11
Published: box AP 43.7, mask AP 39.8 (its README). Not run here.

docs/recipes.md compares every value with the source.
"""

from .common.augmentation.resize_crop import augmentation
from .common.lr_multiplier.multistep import lr_multiplier
from .mask_rcnn_timm import data, dataloader, model, optimizer, train

model.backbone.bottom_up.model_name = "swin_tiny_patch4_window7_224.ms_in1k"
model.backbone.bottom_up.drop_path_rate = 0.1
model.backbone.bottom_up.level_norm = "all"
model.backbone.bottom_up.timm_kwargs = dict(
    always_partition=True
)  # shifted windows in the last stage as well

dataloader.train.mapper.augmentations = augmentation
dataloader.train.mapper.tight_boxes = False
data.settings.coco_2017.train_short_edges = [480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800]
data.settings.coco_2017.max_iter = 87960
data.settings.coco_2017.warmup = 500 / 87960

optimizer.lr = 1e-4
optimizer.clip_norm = None
optimizer.params.decay_biases = True
train.reference_batch_size = 16
