# Cascade R-CNN (https://arxiv.org/abs/1712.00726): three box heads, each refining boxes of the previous one
from detectron2.config import LazyCall as L
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.matcher import Matcher

from d2timm.modeling import CascadeROIHeads

_ious = [0.5, 0.6, 0.7]  # IoU from which a box matches an object, for each stage
_weights = [[20, 20, 10, 10], [30, 30, 15, 15]]  # of the deltas of the later stages, which are smaller


def cascade(roi_heads):
    """Turn ROI heads with one stage into a cascade, in place; later stages have the values of the first."""
    head, predictor = roi_heads.pop("box_head"), roi_heads.pop("box_predictor")
    del roi_heads["proposal_matcher"]
    predictor.input_shape.channels.dims = "${model.roi_heads.box_heads.0.fc_dims}"
    predictor.cls_agnostic_bbox_reg = True
    same = {key: f"${{..0.{key}}}" for key in predictor}

    roi_heads._target_ = CascadeROIHeads
    roi_heads.box_heads = [head, "${.0}", "${.0}"]
    roi_heads.box_predictors = [
        predictor,
        *({**same, "box2box_transform": L(Box2BoxTransform)(weights=weights)} for weights in _weights),
    ]
    roi_heads.proposal_matchers = [
        L(Matcher)(thresholds=[iou], labels=[0, 1], allow_low_quality_matches=False) for iou in _ious
    ]
