"""FCOS with ResNet-50 and FPN, 1x, as in detectron2.

Source: Tian et al., https://arxiv.org/abs/1904.01355 and https://arxiv.org/abs/2006.09214; detectron2,
    configs/COCO-Detection/fcos_R_50_FPN_1x.py
Schedule: 90,000 iterations of 16 images, 12.3 epochs of 117,266; LR drops at 60,000 and 80,000
Published: none by detectron2; box AP 38.7 by mmdetection with similar improvements (center sampling, GIoU,
    normalised boxes). Not run here.

docs/recipes.md compares every value with the source.
"""

from .fcos_timm import model
from .retinanet_resnet50_1x import data, dataloader, lr_multiplier, optimizer, train
from .retinanet_resnet50_1x import model as _retinanet

model.backbone.bottom_up = _retinanet.backbone.bottom_up
