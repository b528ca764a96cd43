"""The one place where a config becomes objects."""

from __future__ import annotations

import copy
import logging
import traceback
from collections.abc import Sequence
from pathlib import Path

import torch
from detectron2.config import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import nn

from .data.catalog import check_split, choose, data_set, tasks_of
from .errors import ConfigError
from .fits import check_fit
from .optim import scaled_rate
from .schedules import images_per_step
from .trainer import check_training

__all__ = [
    "build_model",
    "build_optimizer",
    "check",
    "check_machine",
    "instantiate",
    "learning_rate",
    "settle",
]

logger = logging.getLogger(__name__)


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
    """Make the optimizer of a model.

    With ``train.reference_batch_size`` the learning rate is of a step of so many images, and is scaled to
    those of this run. The tree stays as it is.
    """
    node = copy.deepcopy(cfg.optimizer)
    node._set_parent(cfg)  # what it refers to lies in the tree
    node.params.model = model
    if cfg.train.get("reference_batch_size"):
        node.lr, told = learning_rate(cfg)
        logger.info("Learning rate %s", told)
    optimizer: torch.optim.Optimizer = instantiate(node)
    return optimizer


def learning_rate(cfg: DictConfig) -> tuple[float, str]:
    """The learning rate of a run, scaled to the images of its steps, and how it comes about."""
    return scaled_rate(
        cfg.optimizer.lr,
        cfg.optimizer.get("opt"),
        images_per_step(cfg),
        cfg.train.get("reference_batch_size"),
    )


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
    for split in splits:
        check_split(cfg.data, split, tasks_of(cfg.data))
    for key in ("train.init_checkpoint", "model.backbone.bottom_up.checkpoint_path"):
        file = OmegaConf.select(cfg, key)
        if file and "://" not in file and not Path(file).is_file():
            raise ConfigError(f"{key}={file}: no such file")
    model = build_on_meta(cfg)
    check_classes(cfg, model)
    return model


def check_machine(cfg: DictConfig, processes: int, training: bool = True) -> None:
    """Make sure of all that can be known before data are read.

    Args:
        cfg: the tree.
        processes: of the run.
        training: whether more is to be done than to evaluate.

    Raises:
        ConfigError: this machine or the number of processes does not fit the config, or training cannot be.
    """
    if processes < 1:
        raise ConfigError(f"--num-gpus {processes}: at least one process is needed")
    device, batch = str(cfg.train.device), cfg.dataloader.train.total_batch_size
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(f"train.device={device}: this machine has no GPU; use train.device=cpu")
    if training:
        check_training(cfg)
        build_optimizer(cfg, nn.Linear(1, 1))  # for its mistakes
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
    """Raise ConfigError if the data set has more classes than the detector."""
    chosen, tasks = data_set(cfg.data), tasks_of(cfg.data)
    heads = "model.roi_heads" if hasattr(model, "roi_heads") else "model"
    parts = []
    if "bbox" in tasks:
        parts.append((heads, "num_classes", chosen.classes()))
    if "sem_seg" in tasks:
        parts.append(("model.sem_seg_head.predictor", "out_channels", chosen.semantic_classes(tasks)))
    for place, attribute, names in parts:
        given = getattr(model.get_submodule(place.partition(".")[2]), attribute)
        if len(names) > given:
            raise ConfigError(
                f"the data set has {len(names)} classes and {place.removesuffix('.predictor')}.num_classes="
                f"{given}: leave num_classes out, it follows from the data"
            )
