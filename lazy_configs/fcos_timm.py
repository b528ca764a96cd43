# FCOS with a timm backbone; choose another one by model.backbone.bottom_up.model_name=NAME
from .common.backbone.timm import backbone
from .common.data.auto import data, dataloader
from .common.lr_multiplier.cosine import lr_multiplier
from .common.model.fcos import model
from .common.neck.fpn_p6p7 import neck
from .common.optimizer.adamw import optimizer
from .common.train.default import train

model.backbone = neck
model.backbone.bottom_up = backbone
