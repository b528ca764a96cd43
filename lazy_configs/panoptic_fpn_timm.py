# Panoptic FPN with a timm backbone; choose another one by model.backbone.bottom_up.model_name=NAME
from .common.backbone.timm import backbone
from .common.data.auto import data, dataloader
from .common.lr_multiplier.cosine import lr_multiplier
from .common.model.panoptic_fpn import model
from .common.neck.fpn import neck
from .common.optimizer.adamw import optimizer
from .common.roi_heads.mask import roi_heads
from .common.train.default import train

model.backbone = neck
model.backbone.bottom_up = backbone
model.roi_heads = roi_heads
