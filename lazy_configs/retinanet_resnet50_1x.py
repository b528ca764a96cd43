"""RetinaNet with ResNet-50 and FPN, 1x: detectron2's baseline.

Source: Lin et al., https://arxiv.org/abs/1708.02002; detectron2,
    configs/COCO-Detection/retinanet_R_50_FPN_1x.py
Schedule: 90,000 iterations of 16 images, 12.3 epochs of 117,266; LR drops at 60,000 and 80,000
Published: box AP 37.4 (detectron2's MODEL_ZOO.md). Not run here.

docs/recipes.md compares every value with the source.
"""

from .mask_rcnn_resnet50_1x import data, dataloader, lr_multiplier, optimizer, train
from .mask_rcnn_resnet50_1x import model as _mask_rcnn
from .retinanet_timm import model

model.backbone.bottom_up = _mask_rcnn.backbone.bottom_up

optimizer.lr = 0.01
