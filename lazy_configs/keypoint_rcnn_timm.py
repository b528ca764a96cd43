# Keypoint R-CNN: Faster R-CNN with a keypoint head
from .common.roi_heads.keypoint import roi_heads
from .faster_rcnn_timm import data, dataloader, lr_multiplier, model, optimizer, train

model.roi_heads = roi_heads
model.proposal_generator.post_nms_topk = [1500, 1000]  # with 1000 in training, boxes are less accurate
