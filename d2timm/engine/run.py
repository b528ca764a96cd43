"""Start a run from a config tree and the options of a command line.

torch and detectron2 are imported only after the parts of the config are known to be compatible.
"""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from ..config.compatibility import check_compatibility
from ..config.lazy import check_parts
from ..config.train_options import TrainOptions
from ..data.paths import COCO
from ..errors import ConfigError
from ..runs.aside import check_folder
from ..runs.record import Record, is_held_by_another, record_failure
from ..utils.imports import import_quickly
from ..utils.targets import check_targets
from ..utils.values import check_fields

__all__ = ["start"]

#: Nodes that a run builds
BUILT = (
    *("model", "model.backbone", "model.backbone.bottom_up", "optimizer", "lr_multiplier"),
    *("dataloader.train", "dataloader.train.mapper", "dataloader.test", "dataloader.test.mapper"),
    "dataloader.evaluator",
)


def start(cfg: DictConfig, options: Namespace, command: list[str]) -> None:
    """Check a config, then train, evaluate or summarize it.

    Args:
        cfg: the tree.
        options: ``dry_run``, ``eval_only``, ``resume``; ``num_gpus``, ``num_machines``, ``machine_rank`` and
            ``dist_url`` as in detectron2.
        command: the command line that repeats this run, for its record.

    Raises:
        ConfigError: the user made a mistake; nothing has been created then.
    """
    check_parts(cfg, "train", "data", built=BUILT)
    check_compatibility(cfg)

    import_quickly("d2timm.engine.process")
    from ..config.build import build_on_meta, resolve_dataset
    from ..data.catalog import tasks_of
    from ..data.mapper import check_augmentations, largest_size
    from .batch_norms import check_batch_norms
    from .dry_run import summarize, trial_image
    from .launch import is_first_process, launch, num_processes
    from .process import run
    from .recipes import apply_recipe, given_keys

    automatic = cfg.data.name == "auto"
    resolve_dataset(cfg)
    recipe = apply_recipe(cfg, given_keys(command))
    tasks_of(cfg.data)  # which checks them
    check_fields(TrainOptions, cfg.train, "train")
    check_targets(cfg)
    for place in ["test"] if options.eval_only else ["train", "test"]:
        check_augmentations(cfg.dataloader[place].mapper, f"dataloader.{place}.mapper")
    if options.dry_run:
        model = build_on_meta(cfg)
        print(summarize(cfg, model, recipe))
        if not options.eval_only:
            image = trial_image(largest_size(cfg.dataloader.test.mapper), model)
            check_batch_norms(cfg, model, image, num_processes(options))
        return
    check_folder(Path(cfg.train.output_dir), "train.output_dir")
    first = is_first_process(options)
    if first and is_held_by_another(Path(cfg.train.output_dir)):
        raise ConfigError(f"train.output_dir={cfg.train.output_dir}: another process trains there")
    record = _check(cfg, options, command)
    record.recipe = recipe
    fallback = first and automatic and cfg.data.name == "shapes"
    if fallback:
        print(_banner(cfg.train))
    try:
        launch(run, options, cfg, options.eval_only, options.resume, record)
    except ConfigError as error:
        if first and not options.eval_only:
            record_failure(Path(cfg.train.output_dir), error)
        raise
    if fallback:
        print(_banner(cfg.train))


def _check(cfg: DictConfig, options: Namespace, command: list[str]) -> Record:
    """Check everything that can be checked before the run; returns its initial record."""
    import torch

    from ..backbone.description import multiply_adds
    from ..data.mapper import largest_size
    from ..inference.tta import tta_of
    from .batch_norms import check_batch_norms
    from .dry_run import trial_image
    from .launch import num_processes
    from .preflight import check, check_machine
    from .resuming import check_evaluation, check_resume
    from .validation import checkpoint_to_evaluate

    gpus = torch.cuda.device_count()
    if gpus and options.num_gpus > gpus:
        raise ConfigError(f"--num-gpus {options.num_gpus}: this machine has {gpus}")
    evaluated = checkpoint_to_evaluate(cfg.train) if options.eval_only else None
    check_machine(cfg, num_processes(options), training=not options.eval_only)
    model: Any = check(cfg, ["val"] if options.eval_only else ["train"])
    if cfg.train.get("shard") and not options.eval_only:
        from .sharding import check_sharding

        check_sharding(cfg, model, num_processes(options))
    if evaluated:
        check_evaluation(cfg, model, evaluated)
    elif options.resume:
        check_resume(cfg, model)
    if "tta" in cfg.train and cfg.train.tta.enabled:
        tta_of(
            cfg.train.tta, cfg.dataloader.test.mapper, model
        )  # raises if TTA does not support the detector
    image = trial_image(largest_size(cfg.dataloader.test.mapper), model)
    if not options.eval_only:
        check_batch_norms(cfg, model, image, num_processes(options))
    return Record(command=command, multiply_adds=multiply_adds(model.backbone, image))


def _banner(train: DictConfig) -> str:
    """The notice before and after a run on the embedded dataset that the user did not ask for."""
    from .dry_run import length

    lines = [
        "No dataset is named and COCO 2017 is not found, so this run uses the",
        f"embedded dataset of drawn shapes and a short schedule ({length(train)}).",
        "Its scores show that everything works, not how good a backbone is.",
        "",
        "Your own photographs:  data.train_json=… data.train_images=…",
        "                       data.val_json=… data.val_images=…",
        f"COCO 2017:             data.name={COCO}, below $DETECTRON2_DATASETS or ./datasets",
    ]
    width = max(map(len, lines))
    rule = "─" * (width + 2)
    body = "\n".join(f"│ {line:{width}} │" for line in lines)
    return f"╭{rule}╮\n{body}\n╰{rule}╯"
