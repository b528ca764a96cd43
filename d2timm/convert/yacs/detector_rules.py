"""Rules of the detector: neck, images, anchors, proposals, heads."""

from __future__ import annotations

from typing import Any

from .rule import LEAVE, Rule, pair, under

__all__ = ["DETECTOR"]

GREY = 0.5  # of 256: statistics are equal that round to the same levels of grey

FPN, RPN, HEADS, RETINA = "MODEL.FPN", "MODEL.RPN", "MODEL.ROI_HEADS", "MODEL.RETINANET"
BOX, MASK, KEYPOINT = (f"MODEL.ROI_{head}_HEAD" for head in ("BOX", "MASK", "KEYPOINT"))
ANCHORS, CASCADE = "MODEL.ANCHOR_GENERATOR", "MODEL.ROI_BOX_CASCADE_HEAD"
SEMANTIC, COMBINE = "MODEL.SEM_SEG_HEAD", "MODEL.PANOPTIC_FPN.COMBINE"
PROPOSALS, ROI = "model.proposal_generator", "model.roi_heads"
MATCHER = {"IOU_THRESHOLDS": "thresholds", "IOU_LABELS": "labels"}
POOLER = {
    "POOLER_RESOLUTION": "output_size",
    "POOLER_SAMPLING_RATIO": "sampling_ratio",
    "POOLER_TYPE": "pooler_type",
}


def _repeat(number: int, width: int) -> list[int]:
    return [width] * number


def _of_all(values: list[Any]) -> Any:
    """A list of one entry is for all levels."""
    return values[0] if len(values) == 1 else values


def _input_shape(convs: int, conv_dim: int, fcs: int, resolution: int, channels: int) -> Any:
    """What the box predictor sees: a map, where there are no fully connected layers."""
    if fcs:
        return LEAVE
    shape = {"channels": conv_dim if convs else channels, "height": resolution, "width": resolution}
    return {"_target_": "detectron2.layers.ShapeSpec", **shape}


def _anchors(place: str) -> tuple[Rule, ...]:
    ratios = Rule(f"{ANCHORS}.ASPECT_RATIOS", f"{place}.anchor_generator.aspect_ratios", _of_all)
    return (*under(ANCHORS, f"{place}.anchor_generator", {"SIZES": "sizes", "OFFSET": "offset"}), ratios)


def _box_head(head: str, predictor: str) -> tuple[Rule, ...]:
    """Rules of the box head, or of the first one of a cascade, which the others repeat."""
    sizes = ("NUM_CONV", "CONV_DIM", "NUM_FC", "POOLER_RESOLUTION")
    seen = " ".join([*(f"{BOX}.{key}" for key in sizes), f"{FPN}.OUT_CHANNELS"])
    added = {"BBOX_REG_LOSS_TYPE": "box_reg_loss_type", "USE_SIGMOID_CE": "use_sigmoid_ce"}
    return (
        Rule(f"{BOX}.NUM_CONV {BOX}.CONV_DIM", f"{head}.conv_dims", _repeat),
        Rule(f"{BOX}.NUM_FC {BOX}.FC_DIM", f"{head}.fc_dims", _repeat),
        Rule(f"{BOX}.NORM", f"{head}.conv_norm"),
        Rule(seen, f"{predictor}.input_shape", _input_shape),
        Rule(f"{HEADS}.SCORE_THRESH_TEST", f"{predictor}.test_score_thresh"),
        Rule(f"{HEADS}.NMS_THRESH_TEST", f"{predictor}.test_nms_thresh"),
        Rule(f"{BOX}.SMOOTH_L1_BETA", f"{predictor}.smooth_l1_beta"),
        *under(BOX, predictor, added, add=True),
        Rule(
            f"{BOX}.BBOX_REG_LOSS_WEIGHT",
            f"{predictor}.loss_weight",
            lambda weight: {"loss_box_reg": weight},
            add=True,
        ),
    )


def _stage(k: int) -> tuple[Rule, ...]:
    """Rules of a stage of a cascade."""
    weights = f"{ROI}.box_predictors.{k}.box2box_transform.weights"
    return (
        Rule(f"{CASCADE}.IOUS", f"{ROI}.proposal_matchers.{k}.thresholds", lambda ious: [ious[k]]),
        Rule(f"{CASCADE}.BBOX_REG_WEIGHTS", weights, lambda weights: weights[k]),
    )


RPN_KEYS = {
    "BATCH_SIZE_PER_IMAGE": "batch_size_per_image",
    "POSITIVE_FRACTION": "positive_fraction",
    "NMS_THRESH": "nms_thresh",
}
RPN_ADDED = {
    "BOUNDARY_THRESH": "anchor_boundary_thresh",
    "BBOX_REG_LOSS_TYPE": "box_reg_loss_type",
    "SMOOTH_L1_BETA": "smooth_l1_beta",
}
RETINA_KEYS = {
    "FOCAL_LOSS_ALPHA": "focal_loss_alpha",
    "FOCAL_LOSS_GAMMA": "focal_loss_gamma",
    "SMOOTH_L1_LOSS_BETA": "smooth_l1_beta",
    "BBOX_REG_LOSS_TYPE": "box_reg_loss_type",
    "SCORE_THRESH_TEST": "test_score_thresh",
    "TOPK_CANDIDATES_TEST": "test_topk_candidates",
    "NMS_THRESH_TEST": "test_nms_thresh",
}
SEMANTIC_KEYS = {
    "CONVS_DIM": "conv_dims",
    "NORM": "norm",
    "IGNORE_VALUE": "ignore_value",
    "LOSS_WEIGHT": "loss_weight",
}
COMBINE_KEYS = {
    "OVERLAP_THRESH": "combine_overlap_thresh",
    "STUFF_AREA_LIMIT": "combine_stuff_area_thresh",
    "INSTANCES_CONFIDENCE_THRESH": "combine_instances_score_thresh",
}

DETECTOR: tuple[Rule, ...] = (
    # neck
    *under(FPN, "model.backbone", {"OUT_CHANNELS": "out_channels", "NORM": "norm", "FUSE_TYPE": "fuse_type"}),
    # images
    Rule("INPUT.FORMAT", "model.input_format"),
    Rule("MODEL.PIXEL_MEAN", "model.pixel_mean", tolerance=GREY),
    Rule("MODEL.PIXEL_STD", "model.pixel_std", tolerance=GREY),
    # anchors and proposals
    *_anchors(PROPOSALS),
    *_anchors("model"),
    Rule(f"{RPN}.IN_FEATURES", f"{PROPOSALS}.in_features", follows=True),
    Rule(f"{RPN}.CONV_DIMS", f"{PROPOSALS}.head.conv_dims"),
    *under(RPN, f"{PROPOSALS}.anchor_matcher", MATCHER),
    Rule(f"{RPN}.BBOX_REG_WEIGHTS", f"{PROPOSALS}.box2box_transform.weights"),
    Rule(f"{RPN}.PRE_NMS_TOPK_TRAIN {RPN}.PRE_NMS_TOPK_TEST", f"{PROPOSALS}.pre_nms_topk", pair),
    Rule(f"{RPN}.POST_NMS_TOPK_TRAIN {RPN}.POST_NMS_TOPK_TEST", f"{PROPOSALS}.post_nms_topk", pair),
    *under(RPN, PROPOSALS, RPN_KEYS),
    *under(RPN, PROPOSALS, RPN_ADDED, add=True),
    Rule("MODEL.PROPOSAL_GENERATOR.MIN_SIZE", f"{PROPOSALS}.min_box_size", add=True),
    Rule(
        f"{RPN}.LOSS_WEIGHT {RPN}.BBOX_REG_LOSS_WEIGHT",
        f"{PROPOSALS}.loss_weight",
        lambda both, boxes: {"loss_rpn_cls": both, "loss_rpn_loc": both * boxes},
        add=True,
    ),
    # ROI heads
    Rule(f"{HEADS}.NUM_CLASSES", f"{ROI}.num_classes", follows=True),
    Rule(f"{HEADS}.IN_FEATURES", f"{ROI}.box_in_features", follows=True),
    Rule(f"{HEADS}.BATCH_SIZE_PER_IMAGE", f"{ROI}.batch_size_per_image"),
    Rule(f"{HEADS}.POSITIVE_FRACTION", f"{ROI}.positive_fraction"),
    Rule(f"{HEADS}.PROPOSAL_APPEND_GT", f"{ROI}.proposal_append_gt", add=True),
    *under(HEADS, f"{ROI}.proposal_matcher", MATCHER),
    # boxes
    *under(BOX, f"{ROI}.box_pooler", POOLER),
    Rule(f"{BOX}.TRAIN_ON_PRED_BOXES", f"{ROI}.train_on_pred_boxes", add=True),
    Rule(f"{BOX}.BBOX_REG_WEIGHTS", f"{ROI}.box_predictor.box2box_transform.weights"),
    Rule(f"{BOX}.CLS_AGNOSTIC_BBOX_REG", f"{ROI}.box_predictor.cls_agnostic_bbox_reg"),
    *_box_head(f"{ROI}.box_head", f"{ROI}.box_predictor"),
    *_box_head(f"{ROI}.box_heads.0", f"{ROI}.box_predictors.0"),
    # detectron2's cascade has no other
    Rule(f"{BOX}.CLS_AGNOSTIC_BBOX_REG", f"{ROI}.box_predictors.0.cls_agnostic_bbox_reg", lambda _: LEAVE),
    *(rule for k in range(3) for rule in _stage(k)),
    # masks
    *under(MASK, f"{ROI}.mask_pooler", POOLER),
    Rule(
        f"{MASK}.NUM_CONV {MASK}.CONV_DIM",
        f"{ROI}.mask_head.conv_dims",
        lambda convs, width: _repeat(convs + 1, width),  # the deconvolution is the last
    ),
    Rule(f"{MASK}.NORM", f"{ROI}.mask_head.conv_norm"),
    Rule(f"{MASK}.CLS_AGNOSTIC_MASK", f"{ROI}.mask_head.num_classes", lambda one: 1 if one else LEAVE),
    # keypoints
    *under(KEYPOINT, f"{ROI}.keypoint_pooler", POOLER),
    *under(KEYPOINT, f"{ROI}.keypoint_head", {"CONV_DIMS": "conv_dims", "LOSS_WEIGHT": "loss_weight"}),
    Rule(f"{KEYPOINT}.NUM_KEYPOINTS", f"{ROI}.keypoint_head.num_keypoints", follows=True),
    Rule(
        f"{KEYPOINT}.NORMALIZE_LOSS_BY_VISIBLE_KEYPOINTS {KEYPOINT}.NUM_KEYPOINTS "
        f"{HEADS}.BATCH_SIZE_PER_IMAGE {HEADS}.POSITIVE_FRACTION",
        f"{ROI}.keypoint_head.loss_normalizer",
        lambda visible, points, batch, share: "visible" if visible else points * batch * share,
    ),
    # RetinaNet
    Rule(f"{RETINA}.NUM_CLASSES", "model.num_classes", follows=True),
    Rule(f"{RETINA}.IN_FEATURES", "model.head_in_features", follows=True),
    Rule(f"{RETINA}.NUM_CONVS {FPN}.OUT_CHANNELS", "model.head.conv_dims", _repeat),
    *under(RETINA, "model.head", {"PRIOR_PROB": "prior_prob", "NORM": "norm"}),
    *under(RETINA, "model.anchor_matcher", MATCHER),
    Rule(f"{RETINA}.BBOX_REG_WEIGHTS", "model.box2box_transform.weights"),
    *under(RETINA, "model", RETINA_KEYS),
    # classes of pixels
    Rule(f"{SEMANTIC}.NUM_CLASSES", "model.sem_seg_head.num_classes", follows=True),
    Rule(f"{SEMANTIC}.COMMON_STRIDE", "model.sem_seg_head.common_stride", follows=True),
    *under(SEMANTIC, "model.sem_seg_head", SEMANTIC_KEYS),
    *under(COMBINE, "model", COMBINE_KEYS),
)
