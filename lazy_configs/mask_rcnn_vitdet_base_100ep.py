"""ViTDet-B: Mask R-CNN with a plain transformer, 100 epochs.

Source: Li et al., https://arxiv.org/abs/2203.16527; detectron2,
    projects/ViTDet/configs/COCO/mask_rcnn_vitdet_b_100ep.py
Schedule: 184,375 iterations of 64 images, 100 epochs of 118,000; LR drops at 163,889 and 177,546
Published: box AP 51.6, mask AP 45.9 (its README), from MAE's weights, which timm does not have for windowed
    attention; this recipe starts from SAM's weights. Not run here.

Images are padded to squares of data.settings.NAME.crop_size in training and evaluation.
docs/recipes.md compares every value with the source.
"""

from detectron2.config import LazyCall as L
from timm.layers import get_norm_layer

from .common.augmentation.lsj_unpadded import augmentation
from .common.lr_multiplier.multistep import lr_multiplier
from .common.neck.simple_feature_pyramid import neck
from .common.roi_heads.mask_4conv1fc import roi_heads
from .mask_rcnn_timm import data, dataloader, model, optimizer, train

_side = "${data.settings.${data.name}.crop_size}"

neck.bottom_up = model.backbone.bottom_up
neck.square_pad = _side
model.backbone = neck
model.backbone.bottom_up.model_name = "samvit_base_patch16.sa1b"
model.backbone.bottom_up.drop_path_rate = 0.1
# the epsilon of ViTDet and SAM is 1e-6, the default of timm's samvit 1e-5
model.backbone.bottom_up.timm_kwargs = L("builtins.dict")(
    norm_layer=L(get_norm_layer)(norm_layer="layernorm")
)
model.proposal_generator.head.conv_dims = [-1, -1]
model.roi_heads = roi_heads

dataloader.train.mapper.augmentations = augmentation
dataloader.test.mapper.augmentations[0].short_edge_length = _side
dataloader.test.mapper.augmentations[0].max_size = _side
data.settings.coco_2017.batch_size = 64
data.settings.coco_2017.max_iter = 184375
data.settings.coco_2017.warmup = 250 / 184375
lr_multiplier.scheduler.milestones = [163889, 177546, 184375]

optimizer.lr = 1e-4
optimizer.weight_decay = 0.1
optimizer.clip_norm = None
optimizer.params.layer_decay = 0.7
optimizer.params.decay_biases = True
train.reference_batch_size = 64
train.ddp.fp16_compression = True
