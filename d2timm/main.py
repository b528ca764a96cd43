"""From the options of a command line to a run, in every process of it."""

from __future__ import annotations

import os
from argparse import Namespace
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf

from . import config
from .build import build_on_meta, check, check_machine, settle
from .data.places import COCO
from .describe import multiply_adds
from .dry_run import length, report, trial_image
from .errors import ConfigError
from .launch import launch, under_torchrun
from .record import Record, is_held
from .train import checkpoint_to_evaluate, run
from .tta import tta_of

__all__ = ["main", "start"]


def main(options: Namespace) -> None:
    """Load, override and check a config, then train, evaluate or describe it.

    Args:
        options: what ``scripts/lazyconfig_train.py`` parses.

    Raises:
        ConfigError: a user's mistake, found before anything is made.
    """
    cfg = config.apply_overrides(config.load(options.config_file), options.overrides)
    file = str(options.config_file)
    start(cfg, options, ["python", "scripts/lazyconfig_train.py", "--config-file", file, *options.overrides])


def start(cfg: DictConfig, options: Namespace, command: list[str]) -> None:
    """Check a config, then train, evaluate or describe it.

    Args:
        cfg: the tree.
        options: ``dry_run``, ``eval_only``, ``resume``; ``num_gpus``, ``num_machines``, ``machine_rank`` and
            ``dist_url`` as in detectron2.
        command: what gives this run again.

    Raises:
        ConfigError: a user's mistake, found before anything is made.
    """
    fallback = cfg.data.name == "auto"
    settle(cfg)
    fallback = fallback and cfg.data.name == "shapes"
    if options.dry_run:
        print(report(cfg, build_on_meta(cfg)))
        return
    first = int(os.environ.get("RANK", 0)) == 0 if under_torchrun() else options.machine_rank == 0
    if first and is_held(Path(cfg.train.output_dir)):
        raise ConfigError(f"train.output_dir={cfg.train.output_dir}: another process trains there")
    gpus = torch.cuda.device_count()
    if gpus and options.num_gpus > gpus:
        raise ConfigError(f"--num-gpus {options.num_gpus}: this machine has {gpus}")
    if options.eval_only:
        checkpoint_to_evaluate(cfg)
    processes = int(os.environ["WORLD_SIZE"]) if under_torchrun() else options.num_gpus * options.num_machines
    check_machine(cfg, processes, training=not options.eval_only)
    model = check(cfg, ["val"] if options.eval_only else ["train", "val"])
    if OmegaConf.select(cfg, "train.tta.enabled"):
        tta_of(cfg, model)  # for its mistakes
    cost = multiply_adds(model.get_submodule("backbone"), trial_image(cfg, model))
    record = Record(command=command, multiply_adds=cost)
    if fallback and first:
        print(banner(cfg))
    launch(run, options, cfg, options.eval_only, options.resume, record)
    if fallback and first:
        print(banner(cfg))


def banner(cfg: DictConfig) -> str:
    """What is told, before and after, when no data were named and COCO is not there."""
    lines = [
        "No data set was named and COCO 2017 was not found, so this run uses the",
        f"embedded data set of drawn shapes and a short schedule ({length(cfg)}).",
        "Its numbers say that things work, not how good a backbone is.",
        "",
        "Your own photographs:  data.train_json=… data.train_images=…",
        "                       data.val_json=… data.val_images=…",
        f"COCO 2017:             data.name={COCO}, below $DETECTRON2_DATASETS or ./datasets",
    ]
    width = max(map(len, lines))
    rule = "─" * (width + 2)
    body = "\n".join(f"│ {line:{width}} │" for line in lines)
    return f"╭{rule}╮\n{body}\n╰{rule}╯"
