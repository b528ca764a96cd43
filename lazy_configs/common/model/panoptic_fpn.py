# Panoptic FPN (https://arxiv.org/abs/1901.02446): an R-CNN for things, the head of Semantic FPN for stuff
from detectron2.modeling.meta_arch import PanopticFPN

from .rcnn import model
from .semantic_fpn import model as _semantic

model._target_ = PanopticFPN
model.sem_seg_head = _semantic.sem_seg_head
model.sem_seg_head.loss_weight = 0.5
model.combine_overlap_thresh = 0.5
model.combine_stuff_area_thresh = 4096  # pixels
model.combine_instances_score_thresh = 0.5
