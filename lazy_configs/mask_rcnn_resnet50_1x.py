"""Mask R-CNN with ResNet-50 and FPN, 1x: detectron2's baseline.

Source: He et al., https://arxiv.org/abs/1703.06870; detectron2,
    configs/COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.py
Schedule: 90,000 iterations of 16 images, 12.3 epochs of 117,266; LR drops at 60,000 and 80,000
Published: box AP 38.6, mask AP 35.2 (detectron2's MODEL_ZOO.md). Not run here.

docs/recipes.md compares every value with the source.
"""

from .common.lr_multiplier.multistep import lr_multiplier
from .common.optimizer.sgd import optimizer
from .mask_rcnn_timm import data, dataloader, model, train

model.backbone.bottom_up.model_name = "resnet50.tv_in1k"
model.backbone.bottom_up.norm = "FrozenBN"
model.backbone.bottom_up.freeze_at = 2  # the stem and res2

data.settings.coco_2017.max_iter = 90000
data.settings.coco_2017.warmup = 1000 / 90000
lr_multiplier.scheduler.milestones = [60000, 80000, 90000]

optimizer.lr = 0.02
optimizer.clip_norm = None
optimizer.params.decay_biases = True
train.reference_batch_size = 16
train.amp.enabled = False
