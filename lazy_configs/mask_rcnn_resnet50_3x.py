"""Mask R-CNN with ResNet-50 and FPN, 3x: detectron2's baseline.

Source: He et al., https://arxiv.org/abs/1703.06870; detectron2,
    configs/COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x.yaml
Schedule: 270,000 iterations of 16 images, 36.8 epochs of 117,266; LR drops at 210,000 and 250,000
Published: box AP 41.0, mask AP 37.2 (detectron2's MODEL_ZOO.md). Not run here.

docs/recipes.md compares every value with the source.
"""

from .mask_rcnn_resnet50_1x import data, dataloader, lr_multiplier, model, optimizer, train

data.settings.coco_2017.max_iter = 270000
data.settings.coco_2017.warmup = 1000 / 270000
lr_multiplier.scheduler.milestones = [210000, 250000, 270000]
