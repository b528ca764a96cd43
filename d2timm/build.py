"""The one place where a config becomes objects."""

from __future__ import annotations

import copy
import logging
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from detectron2.config import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import nn

from .data.catalog import check_split, choose, class_names
from .errors import ConfigError
from .fits import check_fit

__all__ = ["build_model", "build_optimizer", "check", "check_machine", "instantiate", "settle"]


def settle(cfg: DictConfig) -> None:
    """Replace ``data.name=auto`` by the set that it means, in place.

    Raises:
        ConfigError: a set that is unknown or contradicts itself.
    """
    if "data" in cfg:
        cfg.data.name = choose(cfg.data)


def build_model(cfg: DictConfig, weights: bool = True) -> nn.Module:
    """Make the detector on the configured device.

    Args:
        cfg: the tree.
        weights: whether the backbone loads its own; not needed where a checkpoint of the whole follows.
    """
    if not weights:
        cfg = copy.deepcopy(cfg)
        cfg.model.backbone.bottom_up.update(pretrained=False, checkpoint_path=None)
    model: nn.Module = instantiate(cfg.model)
    return model.to(cfg.train.device)


def build_optimizer(cfg: DictConfig, model: nn.Module) -> torch.optim.Optimizer:
    """Make the optimizer of a model."""
    node = copy.deepcopy(cfg.optimizer)
    node._set_parent(cfg)  # what it refers to lies in the tree
    node.params.model = model
    optimizer: torch.optim.Optimizer = instantiate(node)
    return optimizer


def check(cfg: DictConfig, splits: Sequence[str]) -> nn.Module:
    """Make sure, before anything is made or written, that a config can be run.

    Args:
        cfg: the tree, settled.
        splits: parts of the data set that will be used.

    Returns:
        The detector on the ``meta`` device.

    Raises:
        ConfigError: what cannot be, in a line.
    """
    check_fit(cfg)
    masks = bool((cfg.model.get("roi_heads") or {}).get("mask_head"))
    for split in splits:
        check_split(cfg.data, split, masks)
    for key in ("train.init_checkpoint", "model.backbone.bottom_up.checkpoint_path"):
        file = OmegaConf.select(cfg, key)
        if file and "://" not in file and not Path(file).is_file():
            raise ConfigError(f"{key}={file}: no such file")
    model = build_on_meta(cfg)
    check_classes(cfg, model)
    return model


def check_machine(cfg: DictConfig, processes: int) -> None:
    """Raise ConfigError if this machine or the number of processes does not fit the config."""
    if processes < 1:
        raise ConfigError(f"--num-gpus {processes}: at least one process is needed")
    device, batch = str(cfg.train.device), cfg.dataloader.train.total_batch_size
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(f"train.device={device}: this machine has no GPU; use train.device=cpu")
    if cfg.train.amp.enabled and device == "cpu":
        raise ConfigError("train.amp.enabled=True needs a GPU: use train.amp.enabled=False")
    if processes > 1 and device == "cpu" and cfg.model.backbone.bottom_up.get("norm") == "SyncBN":
        raise ConfigError("norm=SyncBN needs GPUs: use model.backbone.bottom_up.norm=keep")
    if batch % processes:
        raise ConfigError(
            f"dataloader.train.total_batch_size={batch} cannot be divided among {processes} processes"
        )


def build_on_meta(cfg: DictConfig) -> nn.Module:
    """The detector without numbers, for its shapes and for its mistakes."""
    check_fit(cfg)
    noisy = logging.getLogger("detectron2.config.instantiate")
    level = noisy.level
    noisy.setLevel(logging.CRITICAL)  # it would tell the error twice
    try:
        with torch.device("meta"):
            model: nn.Module = instantiate(cfg.model)
            return model
    except ConfigError:
        raise
    except (
        AssertionError,
        ImportError,
        TypeError,
        ValueError,
        KeyError,
        OmegaConfBaseException,
    ) as error:
        # a bare assert has no text: its line of code tells what was expected
        reason = str(error) or traceback.extract_tb(error.__traceback__)[-1].line or ""
        raise ConfigError(f"the model cannot be built: {' '.join(reason.split())}") from error
    finally:
        noisy.setLevel(level)


def check_classes(cfg: DictConfig, model: nn.Module) -> None:
    """Raise ConfigError if the data set has more classes than the head."""
    place = "model.roi_heads" if hasattr(model, "roi_heads") else "model"
    heads: Any = getattr(model, "roi_heads", model)
    classes = len(class_names(cfg.data))
    if classes > heads.num_classes:
        raise ConfigError(
            f"the data set has {classes} classes and {place}.num_classes={heads.num_classes}: "
            "leave num_classes out, it follows from the data"
        )
