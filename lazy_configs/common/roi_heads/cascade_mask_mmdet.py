# mmdetection's Cascade Mask R-CNN for Swin and ConvNeXt: masks in each stage, class-specific boxes
from d2timm.modeling import CascadeMaskROIHeads

from ..cascade import cascade
from .mask_4conv1fc import roi_heads

roi_heads.box_head.conv_norm = "naiveSyncBN_N"
roi_heads.mask_head.conv_norm = ""
roi_heads.box_predictor.box_reg_loss_type = "giou"
roi_heads.box_predictor.loss_weight = dict(loss_cls=1.0, loss_box_reg=10.0)

cascade(roi_heads)
roi_heads._target_ = CascadeMaskROIHeads
roi_heads.box_predictors[0].cls_agnostic_bbox_reg = False
roi_heads.box_predictors[2].box2box_transform.weights = [1 / 0.033, 1 / 0.033, 1 / 0.067, 1 / 0.067]
roi_heads.mask_heads = [roi_heads.pop("mask_head"), "${.0}", "${.0}"]
roi_heads.stage_weights = [1.0, 0.5, 0.25]  # of the losses
