"""The table of rules: which keys of the old format make which key of d2timm's config tree, and how."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

__all__ = ["CONFIG", "LEAVE", "RULES", "SIZES", "SOLVER", "Rule"]

LEAVE = object()  # a rule returns it where the recipe's value is right


class Rule(NamedTuple):
    """Old keys, and the new key whose value they determine.

    A rule does not apply where the new tree has no place for the new key: its detector lacks that part.

    Attributes:
        old: keys of the old config.
        new: key of the new tree; ``{data}`` stands for ``data.name``.
        translate: computes the new value from the old values; it may return ``LEAVE``.
        optional: whether d2timm's nodes omit the new key, and so leave it to the default of the class.
        derived: whether d2timm derives the value from the data or the neck. It is not written then, and any
            other value than the derived one is reported as not converted.
    """

    old: tuple[str, ...]
    new: str
    translate: Callable[..., Any] = lambda value: value
    optional: bool = False
    derived: bool = False


def _rule(section: str, keys: str, new: str, translate: Callable[..., Any], optional: bool = False) -> Rule:
    """A rule for keys of a section, separated by blanks; a key with a dot is a full one."""
    old = tuple(key if "." in key else f"{section}.{key}" for key in keys.split())
    return Rule(old, new, translate, optional)


def _move(section: str, new: str, keys: str, derived: bool = False) -> tuple[Rule, ...]:
    """Rules that copy values from one section to another.

    Args:
        section: the old section.
        new: the new section.
        keys: ``OLD=new`` separated by blanks; ``OLD`` alone stands for its lower case, ``+`` in front for an
            optional key.
        derived: as in ``Rule``.
    """
    rules = []
    for entry in keys.split():
        old, _, name = entry.lstrip("+").partition("=")
        key = f"{new}.{name or old.lower()}"
        rules.append(Rule((f"{section}.{old}",), key, optional=entry.startswith("+"), derived=derived))
    return tuple(rules)


def _repeat(number: int, width: int) -> list[int]:
    return [width] * number


def _round(value: float) -> float:
    """Remove rounding errors."""
    return float(f"{value:.12g}")


# ---- the detector

CONFIG = "MODEL.BACKBONE.CONFIG"
FPN, RPN, HEADS, RETINA = "MODEL.FPN", "MODEL.RPN", "MODEL.ROI_HEADS", "MODEL.RETINANET"
BOX, MASK, KEYPOINT = (f"MODEL.ROI_{head}_HEAD" for head in ("BOX", "MASK", "KEYPOINT"))
ANCHORS, CASCADE, SEMANTIC = "MODEL.ANCHOR_GENERATOR", "MODEL.ROI_BOX_CASCADE_HEAD", "MODEL.SEM_SEG_HEAD"
PROPOSALS, ROI, BOTTOM_UP = "model.proposal_generator", "model.roi_heads", "model.backbone.bottom_up"
MATCHER = "IOU_THRESHOLDS=thresholds IOU_LABELS=labels"
POOLER = "POOLER_RESOLUTION=output_size POOLER_SAMPLING_RATIO=sampling_ratio POOLER_TYPE"


def _predictor_input(convs: int, conv_dim: int, fcs: int, resolution: int, channels: int) -> Any:
    """Input of the box predictor if the box head has no fully connected layer: a feature map."""
    if fcs:
        return LEAVE
    shape = {"channels": conv_dim if convs else channels, "height": resolution, "width": resolution}
    return {"_target_": "detectron2.layers.ShapeSpec", **shape}


def _box_head(head: str, predictor: str) -> tuple[Rule, ...]:
    """Rules of the box head, or of the first one of a cascade, which the later stages repeat."""
    sizes = f"NUM_CONV CONV_DIM NUM_FC POOLER_RESOLUTION {FPN}.OUT_CHANNELS"
    weight = f"{predictor}.loss_weight"
    return (
        _rule(BOX, "NUM_CONV CONV_DIM", f"{head}.conv_dims", _repeat),
        _rule(BOX, "NUM_FC FC_DIM", f"{head}.fc_dims", _repeat),
        *_move(BOX, head, "NORM=conv_norm"),
        _rule(BOX, sizes, f"{predictor}.input_shape", _predictor_input),
        *_move(HEADS, predictor, "SCORE_THRESH_TEST=test_score_thresh NMS_THRESH_TEST=test_nms_thresh"),
        *_move(BOX, predictor, "SMOOTH_L1_BETA +BBOX_REG_LOSS_TYPE=box_reg_loss_type +USE_SIGMOID_CE"),
        _rule(BOX, "BBOX_REG_LOSS_WEIGHT", weight, lambda value: {"loss_box_reg": value}, True),
    )


def _cascade_stage(k: int) -> tuple[Rule, ...]:
    weights = f"{ROI}.box_predictors.{k}.box2box_transform.weights"
    return (
        _rule(CASCADE, "IOUS", f"{ROI}.proposal_matchers.{k}.thresholds", lambda ious: [ious[k]]),
        _rule(CASCADE, "BBOX_REG_WEIGHTS", weights, lambda weights: weights[k]),
    )


DETECTOR: tuple[Rule, ...] = (
    *_move(CONFIG, BOTTOM_UP, "PRETRAINED"),
    *_move("MODEL.BACKBONE", BOTTOM_UP, "FREEZE_AT"),
    *_move("INPUT", "model", "FORMAT=input_format"),
    *_move("MODEL", "model", "PIXEL_MEAN PIXEL_STD"),
    *_move(FPN, "model.backbone", "OUT_CHANNELS NORM FUSE_TYPE"),
    # anchors and proposals
    *_move(ANCHORS, f"{PROPOSALS}.anchor_generator", "SIZES ASPECT_RATIOS OFFSET"),
    *_move(ANCHORS, "model.anchor_generator", "SIZES ASPECT_RATIOS OFFSET"),
    *_move(RPN, PROPOSALS, "IN_FEATURES", derived=True),
    *_move(RPN, f"{PROPOSALS}.head", "CONV_DIMS"),
    *_move(RPN, f"{PROPOSALS}.anchor_matcher", MATCHER),
    *_move(RPN, f"{PROPOSALS}.box2box_transform", "BBOX_REG_WEIGHTS=weights"),
    _rule(RPN, "PRE_NMS_TOPK_TRAIN PRE_NMS_TOPK_TEST", f"{PROPOSALS}.pre_nms_topk", lambda *k: [*k]),
    _rule(RPN, "POST_NMS_TOPK_TRAIN POST_NMS_TOPK_TEST", f"{PROPOSALS}.post_nms_topk", lambda *k: [*k]),
    *_move(
        RPN,
        PROPOSALS,
        "BATCH_SIZE_PER_IMAGE POSITIVE_FRACTION NMS_THRESH SMOOTH_L1_BETA "
        "BOUNDARY_THRESH=anchor_boundary_thresh +BBOX_REG_LOSS_TYPE=box_reg_loss_type",
    ),
    *_move("MODEL.PROPOSAL_GENERATOR", PROPOSALS, "+MIN_SIZE=min_box_size"),
    _rule(
        RPN,
        "LOSS_WEIGHT BBOX_REG_LOSS_WEIGHT",
        f"{PROPOSALS}.loss_weight",
        lambda both, boxes: {"loss_rpn_cls": both, "loss_rpn_loc": both * boxes},
        optional=True,
    ),
    # ROI heads
    *_move(HEADS, ROI, "NUM_CLASSES IN_FEATURES=box_in_features", derived=True),
    *_move(HEADS, ROI, "BATCH_SIZE_PER_IMAGE POSITIVE_FRACTION +PROPOSAL_APPEND_GT"),
    *_move(HEADS, f"{ROI}.proposal_matcher", MATCHER),
    *_move(BOX, f"{ROI}.box_pooler", POOLER),
    *_move(BOX, ROI, "+TRAIN_ON_PRED_BOXES"),
    *_move(BOX, f"{ROI}.box_predictor.box2box_transform", "BBOX_REG_WEIGHTS=weights"),
    *_move(BOX, f"{ROI}.box_predictor", "CLS_AGNOSTIC_BBOX_REG"),
    *_box_head(f"{ROI}.box_head", f"{ROI}.box_predictor"),
    *_box_head(f"{ROI}.box_heads.0", f"{ROI}.box_predictors.0"),
    # detectron2's cascade is always class-agnostic
    _rule(BOX, "CLS_AGNOSTIC_BBOX_REG", f"{ROI}.box_predictors.0.cls_agnostic_bbox_reg", lambda _: LEAVE),
    *(rule for k in range(3) for rule in _cascade_stage(k)),
    *_move(MASK, f"{ROI}.mask_pooler", POOLER),
    _rule(  # the deconvolution is the last
        MASK, "NUM_CONV CONV_DIM", f"{ROI}.mask_head.conv_dims", lambda convs, width: [width] * (convs + 1)
    ),
    *_move(MASK, f"{ROI}.mask_head", "NORM=conv_norm"),
    _rule(MASK, "CLS_AGNOSTIC_MASK", f"{ROI}.mask_head.num_classes", lambda one: 1 if one else LEAVE),
    *_move(KEYPOINT, f"{ROI}.keypoint_pooler", POOLER),
    *_move(KEYPOINT, f"{ROI}.keypoint_head", "CONV_DIMS LOSS_WEIGHT"),
    *_move(KEYPOINT, f"{ROI}.keypoint_head", "NUM_KEYPOINTS", derived=True),
    _rule(
        KEYPOINT,
        "NORMALIZE_LOSS_BY_VISIBLE_KEYPOINTS NUM_KEYPOINTS "
        f"{HEADS}.BATCH_SIZE_PER_IMAGE {HEADS}.POSITIVE_FRACTION",
        f"{ROI}.keypoint_head.loss_normalizer",
        lambda visible, points, batch, fraction: "visible" if visible else points * batch * fraction,
    ),
    # RetinaNet
    *_move(RETINA, "model", "NUM_CLASSES IN_FEATURES=head_in_features", derived=True),
    _rule(RETINA, f"NUM_CONVS {FPN}.OUT_CHANNELS", "model.head.conv_dims", _repeat),
    *_move(RETINA, "model.head", "PRIOR_PROB NORM"),
    *_move(RETINA, "model.anchor_matcher", MATCHER),
    *_move(RETINA, "model.box2box_transform", "BBOX_REG_WEIGHTS=weights"),
    *_move(
        RETINA,
        "model",
        "FOCAL_LOSS_ALPHA FOCAL_LOSS_GAMMA SMOOTH_L1_LOSS_BETA=smooth_l1_beta "
        "BBOX_REG_LOSS_TYPE=box_reg_loss_type SCORE_THRESH_TEST=test_score_thresh "
        "TOPK_CANDIDATES_TEST=test_topk_candidates NMS_THRESH_TEST=test_nms_thresh",
    ),
    # semantic and panoptic segmentation
    *_move(SEMANTIC, "model.sem_seg_head", "NUM_CLASSES COMMON_STRIDE", derived=True),
    *_move(SEMANTIC, "model.sem_seg_head", "CONVS_DIM=conv_dims NORM IGNORE_VALUE LOSS_WEIGHT"),
    *_move(
        "MODEL.PANOPTIC_FPN.COMBINE",
        "model",
        "OVERLAP_THRESH=combine_overlap_thresh STUFF_AREA_LIMIT=combine_stuff_area_thresh "
        "INSTANCES_CONFIDENCE_THRESH=combine_instances_score_thresh",
    ),
)

# ---- training

SETTINGS, AUGMENTATIONS = "data.settings.{data}", "dataloader.train.mapper.augmentations"
SCHEDULER = "lr_multiplier.scheduler"


def _milestones(name: str, length: int, steps: list[int], decays: int) -> list[int]:
    """Where the learning rate falls, followed by the end of the schedule; only their ratios matter."""
    if name == "WarmupStepWithFixedGammaLR":
        return list(range(1, decays + 2))
    return [*(step for step in steps if step < length), length]


def _factors(name: str, length: int, steps: list[int], decays: int, gamma: float) -> list[float]:
    return [_round(gamma**k) for k in range(len(_milestones(name, length, steps, decays)))]


def _warmup(iterations: int, length: int) -> float:
    if iterations < 0:
        raise ValueError("a negative number of iterations")
    return min(iterations / length, 1.0)


def _param_groups(norms: float, biases: float | None, bias_factor: float, decay: float) -> Any:
    """Parameter groups as detectron2's; the recipe's have no weight decay for norms and biases."""
    if norms == 0 and (decay if biases is None else biases) == 0 and bias_factor == 1:
        return LEAVE
    groups: dict[str, Any] = {"_target_": "detectron2.solver.get_default_optimizer_params"}
    if bias_factor != 1:
        groups |= {"base_lr": "${..lr}", "bias_lr_factor": bias_factor}
    groups["weight_decay_norm"] = norms
    return groups if biases is None else {**groups, "weight_decay_bias": biases}


def _scales(on: bool, sizes: list[int], side: int) -> Any:
    return [_round(size / side) for size in sizes] if on and side else LEAVE


SIZES: tuple[Rule, ...] = (
    *_move("INPUT", SETTINGS, "MIN_SIZE_TRAIN=train_short_edges MIN_SIZE_TEST=test_short_edge"),
    *_move("INPUT", SETTINGS, "MAX_SIZE_TEST=max_size"),
    _rule(
        "INPUT",
        "MAX_SIZE_TRAIN MAX_SIZE_TEST",
        f"{AUGMENTATIONS}.0.max_size",
        lambda train, test: LEAVE if train == test else train,
    ),
)
SOLVER: tuple[Rule, ...] = (
    *_move("SOLVER", SETTINGS, "IMS_PER_BATCH=batch_size"),
    _rule("SOLVER", "OPTIMIZER", "optimizer.opt", str.lower),
    *_move("SOLVER", "optimizer", "BASE_LR=lr WEIGHT_DECAY MOMENTUM NESTEROV"),
    _rule(
        "SOLVER.CLIP_GRADIENTS",
        "ENABLED CLIP_VALUE CLIP_TYPE NORM_TYPE",
        "optimizer.clip_norm",
        lambda on, value, *_: value if on else None,
    ),
    _rule(
        "SOLVER",
        "WEIGHT_DECAY_NORM WEIGHT_DECAY_BIAS BIAS_LR_FACTOR WEIGHT_DECAY",
        "optimizer.params",
        _param_groups,
    ),
    *_move("SOLVER", "train", "MAX_ITER"),
    _rule("SOLVER", "LR_SCHEDULER_NAME MAX_ITER STEPS NUM_DECAYS GAMMA", f"{SCHEDULER}.values", _factors),
    _rule("SOLVER", "LR_SCHEDULER_NAME MAX_ITER STEPS NUM_DECAYS", f"{SCHEDULER}.milestones", _milestones),
    _rule("SOLVER", "BASE_LR_END BASE_LR", f"{SCHEDULER}.end_value", lambda end, base: _round(end / base)),
    _rule("SOLVER", "WARMUP_ITERS MAX_ITER", "lr_multiplier.warmup_length", _warmup),
    *_move("SOLVER", "lr_multiplier", "WARMUP_FACTOR WARMUP_METHOD"),
)
TRAINING: tuple[Rule, ...] = (
    *SIZES,
    *_move("INPUT", f"{AUGMENTATIONS}.0", "MIN_SIZE_TRAIN_SAMPLING=sample_style"),
    _rule("INPUT", "RANDOM_FLIP", f"{AUGMENTATIONS}.1.horizontal", lambda flip: flip != "vertical"),
    _rule(
        "INPUT", "RANDOM_FLIP", f"{AUGMENTATIONS}.1.vertical", lambda flip: flip == "vertical" or LEAVE, True
    ),
    _rule(
        "INPUT", "RANDOM_FLIP", f"{AUGMENTATIONS}.1.prob", lambda flip: 0.0 if flip == "none" else LEAVE, True
    ),
    *_move("INPUT", "dataloader.train.mapper", "MASK_FORMAT=instance_mask_format"),
    *_move("TEST", SETTINGS, "DETECTIONS_PER_IMAGE"),
    *_move("DATALOADER", SETTINGS, "NUM_WORKERS=workers"),
    _rule(
        "DATALOADER",
        "SAMPLER_TRAIN REPEAT_THRESHOLD",
        f"{SETTINGS}.repeat_threshold",
        lambda sampler, threshold: threshold if sampler == "RepeatFactorTrainingSampler" else 0.0,
    ),
    *SOLVER,
    *_move("SOLVER", "lr_multiplier", "+RESCALE_INTERVAL"),
    # by default, a recipe uses the GPU and mixed precision where there is a GPU
    _rule("SOLVER.AMP", "ENABLED", "train.amp.enabled", lambda on: LEAVE if on else False),
    _rule("MODEL", "DEVICE", "train.device", lambda device: LEAVE if device == "cuda" else device),
    *_move("SOLVER", "train.checkpointer", "CHECKPOINT_PERIOD=period"),
    *_move("TEST", "train", "EVAL_PERIOD"),
    *_move("TEST.AUG", "train.tta", "ENABLED"),
    _rule("TEST.AUG", "ENABLED FLIP", "train.tta.flip", lambda on, flip: flip if on else LEAVE),
    _rule("TEST.AUG", "ENABLED MIN_SIZES INPUT.MIN_SIZE_TEST", "train.tta.scales", _scales),
    Rule(("SEED",), "train.seed", lambda seed: LEAVE if seed < 0 else seed),
    Rule(("CUDNN_BENCHMARK",), "train.cudnn_benchmark"),
    Rule(("OUTPUT_DIR",), "train.output_dir"),
)
RULES = DETECTOR + TRAINING
