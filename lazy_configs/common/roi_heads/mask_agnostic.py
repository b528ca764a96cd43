# Class-agnostic boxes and masks, for many classes or few examples of each
from .mask import roi_heads

roi_heads.box_predictor.cls_agnostic_bbox_reg = True
roi_heads.mask_head.num_classes = 1
