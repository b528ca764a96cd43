# A small Mask R-CNN that two CPU cores train from scratch in minutes: a narrow neck, narrow heads and few
# proposals, on the embedded dataset
from .mask_rcnn_timm import data, dataloader, lr_multiplier, model, optimizer, train

data.name = "shapes"
data.settings.shapes.batch_size = 4
data.settings.shapes.rois_per_image = 64

model.backbone.bottom_up.model_name = "resnet18d"
model.backbone.out_channels = 64
model.proposal_generator.pre_nms_topk = [500, 500]
model.proposal_generator.post_nms_topk = [100, 100]
model.roi_heads.box_head.fc_dims = [256, 256]
model.roi_heads.mask_head.conv_dims = [64, 64, 64, 64, 64]

train.max_iter = 400
train.output_dir = "./output/demo"
