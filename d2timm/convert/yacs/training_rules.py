"""Rules of training: data, optimizer, schedule, the run."""

from __future__ import annotations

from typing import Any

from .rule import LEAVE, Quotient, Rule, rounded, under

__all__ = ["TRAINING"]

SETTINGS, AUGMENTATIONS = "data.settings.{data}", "dataloader.train.mapper.augmentations"
SCHEDULER = "lr_multiplier.scheduler"


def _steps(name: str, steps: list[int], decays: int, length: int) -> list[int]:
    """Where the learning rate falls, the end of the schedule last; their scale does not matter."""
    if name == "WarmupStepWithFixedGammaLR":
        return list(range(1, decays + 2))
    return [*(step for step in steps if step < length), length]


def _factors(name: str, steps: list[int], decays: int, length: int, gamma: float) -> list[float]:
    return [rounded(gamma**k) for k in range(len(_steps(name, steps, decays, length)))]


def _share(warmup: int, length: int) -> Quotient:
    if length < 1 or warmup < 0:
        raise ValueError("a schedule has at least one iteration")
    return Quotient(min(warmup, length), length)


def _groups(norms: float, biases: float | None, bias_factor: float, decay: float) -> Any:
    """detectron2's groups of parameters; ours have no weight decay for norms and biases."""
    if norms == 0 and (decay if biases is None else biases) == 0 and bias_factor == 1:
        return LEAVE
    groups: dict[str, Any] = {"_target_": "detectron2.solver.get_default_optimizer_params"}
    if bias_factor != 1:
        groups |= {"base_lr": "${..lr}", "bias_lr_factor": bias_factor}
    groups["weight_decay_norm"] = norms
    if biases is not None:
        groups["weight_decay_bias"] = biases
    return groups


TRAINING: tuple[Rule, ...] = (
    # data
    Rule("INPUT.MIN_SIZE_TRAIN", f"{SETTINGS}.train_short_edges"),
    Rule("INPUT.MIN_SIZE_TEST", f"{SETTINGS}.test_short_edge"),
    Rule("INPUT.MAX_SIZE_TEST", f"{SETTINGS}.max_size"),
    Rule(
        "INPUT.MAX_SIZE_TRAIN INPUT.MAX_SIZE_TEST",
        f"{AUGMENTATIONS}.0.max_size",
        lambda train, test: LEAVE if train == test else train,
    ),
    Rule("INPUT.MIN_SIZE_TRAIN_SAMPLING", f"{AUGMENTATIONS}.0.sample_style"),
    Rule("INPUT.RANDOM_FLIP", f"{AUGMENTATIONS}.1.horizontal", lambda way: way != "vertical"),
    Rule("INPUT.RANDOM_FLIP", f"{AUGMENTATIONS}.1.vertical", lambda way: way == "vertical", add=True),
    Rule("INPUT.RANDOM_FLIP", f"{AUGMENTATIONS}.1.prob", lambda way: 0.0 if way == "none" else 0.5, add=True),
    Rule("INPUT.MASK_FORMAT", "dataloader.train.mapper.instance_mask_format"),
    Rule("SOLVER.IMS_PER_BATCH", f"{SETTINGS}.batch_size"),
    Rule("TEST.DETECTIONS_PER_IMAGE", f"{SETTINGS}.detections_per_image"),
    Rule("DATALOADER.NUM_WORKERS", f"{SETTINGS}.workers"),
    Rule(
        "DATALOADER.SAMPLER_TRAIN DATALOADER.REPEAT_THRESHOLD",
        f"{SETTINGS}.repeat_threshold",
        lambda sampler, share: share if sampler == "RepeatFactorTrainingSampler" else 0.0,
    ),
    # optimizer
    Rule("SOLVER.OPTIMIZER", "optimizer.opt", str.lower),
    Rule("SOLVER.BASE_LR", "optimizer.lr"),
    *under(
        "SOLVER",
        "optimizer",
        {"WEIGHT_DECAY": "weight_decay", "MOMENTUM": "momentum", "NESTEROV": "nesterov"},
    ),
    Rule(
        "SOLVER.CLIP_GRADIENTS.ENABLED SOLVER.CLIP_GRADIENTS.CLIP_VALUE",
        "optimizer.clip_norm",
        lambda enabled, value: value if enabled else None,
    ),
    Rule(
        "SOLVER.WEIGHT_DECAY_NORM SOLVER.WEIGHT_DECAY_BIAS SOLVER.BIAS_LR_FACTOR SOLVER.WEIGHT_DECAY",
        "optimizer.params",
        _groups,
    ),
    # schedule
    Rule("SOLVER.MAX_ITER", "train.max_iter"),
    Rule(
        "SOLVER.LR_SCHEDULER_NAME SOLVER.STEPS SOLVER.NUM_DECAYS SOLVER.MAX_ITER SOLVER.GAMMA",
        f"{SCHEDULER}.values",
        _factors,
    ),
    Rule(
        "SOLVER.LR_SCHEDULER_NAME SOLVER.STEPS SOLVER.NUM_DECAYS SOLVER.MAX_ITER",
        f"{SCHEDULER}.milestones",
        _steps,
    ),
    Rule(
        "SOLVER.BASE_LR_END SOLVER.BASE_LR", f"{SCHEDULER}.end_value", lambda end, start: rounded(end / start)
    ),
    Rule(
        "SOLVER.WARMUP_ITERS SOLVER.MAX_ITER",
        "lr_multiplier.warmup_length",
        _share,
    ),
    *under("SOLVER", "lr_multiplier", {"WARMUP_FACTOR": "warmup_factor", "WARMUP_METHOD": "warmup_method"}),
    Rule("SOLVER.RESCALE_INTERVAL", "lr_multiplier.rescale_interval", add=True),
    # the run
    Rule("SOLVER.AMP.ENABLED", "train.amp.enabled", lambda on: LEAVE if on else False, always=True),
    Rule("SOLVER.CHECKPOINT_PERIOD", "train.checkpointer.period"),
    Rule("TEST.EVAL_PERIOD", "train.eval_period"),
    Rule("TEST.AUG.ENABLED", "train.tta.enabled"),
    Rule("TEST.AUG.ENABLED TEST.AUG.FLIP", "train.tta.flip", lambda on, flip: flip if on else LEAVE),
    Rule(
        "TEST.AUG.ENABLED TEST.AUG.MIN_SIZES INPUT.MIN_SIZE_TEST",
        "train.tta.scales",
        lambda on, sizes, side: [rounded(size / side) for size in sizes] if on and side else LEAVE,
    ),
    Rule("MODEL.DEVICE", "train.device", lambda device: LEAVE if device == "cuda" else device, always=True),
    Rule("SEED", "train.seed", lambda seed: LEAVE if seed < 0 else seed),
    Rule("CUDNN_BENCHMARK", "train.cudnn_benchmark"),
    Rule("OUTPUT_DIR", "train.output_dir"),
)
