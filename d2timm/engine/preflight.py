"""Checks before a run creates any file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

from ..config.build import build_on_meta, check_classes, instantiate
from ..config.train_options import TrainOptions
from ..data.catalog import check_split, splits_of, tasks_of
from ..errors import ConfigError
from ..runs.checkpoint_file import check_fit, read_checkpoint
from ..utils.values import check_fields
from .optim import build_optimizer
from .schedules import check_lengths
from .trainer import PRECISIONS
from .warm_heads import check_heads
from .writers import check_writers

__all__ = ["check", "check_machine", "check_training"]


def check(cfg: DictConfig, splits: Sequence[str]) -> nn.Module:
    """Check data, files and the detector of a config.

    Args:
        cfg: the tree, its dataset resolved.
        splits: the splits of the dataset that the run needs; others are checked if they are there.

    Returns:
        The detector on the ``meta`` device.

    Raises:
        ConfigError: the run would fail.
    """
    available = splits_of(cfg.data) if "train" in splits else ()
    for split in [*splits, *(split for split in available if split not in splits and "train" in splits)]:
        check_split(cfg.data, split, tasks_of(cfg.data))
    if "val" not in (*splits, *available):
        _check_without_validation(cfg.train)
    for key in ("train.init_checkpoint", "model.backbone.bottom_up.checkpoint_path"):
        file = OmegaConf.select(cfg, key)
        if file and "://" not in file and not Path(file).is_file():
            raise ConfigError(f"{key}={file}: no such file")
    model = build_on_meta(cfg)
    file = cfg.train.init_checkpoint
    if file and "://" not in file:
        check_fit(read_checkpoint(file, lazy=True), model, f"train.init_checkpoint={file}")
    if cfg.train.get("init_heads"):
        check_heads(cfg.train.init_heads, model)
    check_classes(cfg.data, model)
    return model


def _check_without_validation(train: DictConfig) -> None:
    """Raise ConfigError if a run without a validation set depends on its scores."""
    for key in ("early_stop", "stop_below_median"):
        if train.get(key, 0):
            raise ConfigError(
                f"train.{key}={train[key]} compares scores, and there is no validation set: set "
                "data.val_json and data.val_images, or data.val_share"
            )


def check_machine(cfg: DictConfig, processes: int, training: bool = True) -> None:
    """Check a config against this machine and, if the run trains, its training options.

    Args:
        cfg: the tree.
        processes: number of processes of the run.
        training: whether the run trains; otherwise it only evaluates.

    Raises:
        ConfigError: the config does not suit this machine or the number of processes, or cannot be trained.
    """
    if processes < 1:
        raise ConfigError(f"--num-gpus {processes}: at least one process is needed")
    device, batch = str(cfg.train.device), cfg.dataloader.train.total_batch_size
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(f"train.device={device}: this machine has no GPU; use train.device=cpu")
    if training:
        check_training(cfg.train)
        build_optimizer(cfg, nn.Linear(1, 1))  # raises for unknown optimizers and options
        instantiate(cfg.lr_multiplier)
    if processes > 1 and device == "cpu" and cfg.model.backbone.bottom_up.get("norm") == "SyncBN":
        raise ConfigError("norm=SyncBN needs GPUs: use model.backbone.bottom_up.norm=keep")
    if batch % processes:
        raise ConfigError(
            f"dataloader.train.total_batch_size={batch} cannot be divided among {processes} processes"
        )


def check_training(train: DictConfig) -> None:
    """Check the values of the node ``train``.

    Raises:
        ConfigError: a value is out of range, contradicts another one, or needs what this machine lacks.
    """
    check_fields(TrainOptions, train, "train")
    check_lengths(train)
    if train.get("fit_laterals") and not train.get("init_heads"):
        raise ConfigError(f"train.fit_laterals={train.fit_laterals}: set train.init_heads, too")
    _check_precision(train)
    if train.ddp.get("fp16_compression") and train.ddp.get("bf16_compression"):
        raise ConfigError("train.ddp.fp16_compression and bf16_compression: gradients have one type, use one")
    if train.get("early_stop", 0) and not (train.eval_period or train.get("eval_epochs")):
        raise ConfigError(
            f"train.early_stop={train.early_stop} counts evaluations, but the only one is at the end: "
            "set train.eval_period or train.eval_epochs"
        )
    metric = train.get("metric")
    if metric and not all(metric.partition("/")):
        raise ConfigError(f"train.metric={metric}: use task/metric, such as bbox/AP")
    check_writers(train.get("writers") or [])


def _check_precision(train: DictConfig) -> None:
    precision, device = train.amp.get("precision", "fp16"), torch.device(train.device).type
    if precision not in PRECISIONS:
        raise ConfigError(f"train.amp.precision={precision}: must be one of {', '.join(PRECISIONS)}")
    if not train.amp.enabled:
        return
    if device == "cpu" and precision == "fp16":
        raise ConfigError(
            "train.amp.enabled=True needs a GPU: use train.amp.enabled=False, or train.amp.precision=bf16"
        )
    if device == "cuda" and precision == "bf16" and not torch.cuda.is_bf16_supported(False):
        raise ConfigError(
            "train.amp.precision=bf16: this GPU does not support it; use train.amp.precision=fp16"
        )
