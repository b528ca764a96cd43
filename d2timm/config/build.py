"""Build the objects that a config tree describes."""

from __future__ import annotations

import copy
from typing import Any

import torch
from omegaconf import DictConfig
from torch import nn

from ..data.catalog import get_dataset, resolve_name, tasks_of
from ..data.mapper import largest_size
from ..errors import ConfigError
from ..modeling.folding import fold_norms
from ..modeling.host_waits import avoid_host_waits
from ..modeling.roi_align import use_fast_roi_align
from ..modeling.ways import Ways, apply_ways, compiler_is_missing
from ..utils.targets import instantiate

__all__ = ["build_model", "build_on_meta", "check_classes", "instantiate", "resolve_dataset", "use_ways"]


def resolve_dataset(cfg: DictConfig) -> None:
    """Replace ``data.name=auto`` by the name of the dataset that it stands for, in place.

    Raises:
        ConfigError: the dataset is unknown, or its settings contradict each other.
    """
    if "data" in cfg:
        cfg.data.name = resolve_name(cfg.data)


def build_model(cfg: DictConfig, weights: bool = True) -> nn.Module:
    """Build the detector on the device ``train.device``, with layers that compute the same in less time.

    Args:
        cfg: the tree.
        weights: whether the backbone loads pretrained weights; False if a checkpoint of the detector follows.
    """
    if not weights:
        cfg = copy.deepcopy(cfg)
        cfg.model.backbone.bottom_up.update(pretrained=False, checkpoint_path=None)
    model: Any = instantiate(cfg.model)
    fold_norms(model.backbone.bottom_up, len(model.pixel_mean))
    use_fast_roi_align(model)
    avoid_host_waits(model)
    return model.to(cfg.train.device)  # type: ignore[no-any-return]


def use_ways(cfg: DictConfig, model: nn.Module, split: str, **ways: bool) -> None:
    """Let a detector compute in other ways, in place.

    Args:
        cfg: the tree.
        model: the detector that it describes, on its device.
        split: ``train`` or ``test``, whose images it gets.
        ways: those of ``Ways``.

    Raises:
        ConfigError: the compiler is missing.
    """
    chosen = Ways(**ways)
    if chosen.compile and (missing := compiler_is_missing(cfg.train.device)):
        raise ConfigError(f"compile=True: {missing}; use compile=False")
    apply_ways(model, chosen, max(largest_size(cfg.dataloader[split].mapper)))


def build_on_meta(cfg: DictConfig) -> nn.Module:
    """Build the detector on the ``meta`` device, where tensors have shapes and no data.

    Raises:
        ConfigError: the detector cannot be built.
    """
    with torch.device("meta"):
        model: nn.Module = instantiate(cfg.model)
        return model


def check_classes(data: DictConfig, model: nn.Module) -> None:
    """Raise ConfigError if the dataset has more classes than the detector.

    Args:
        data: the node ``data``, its name resolved.
        model: the detector, on any device.
    """
    dataset, tasks = get_dataset(data), tasks_of(data)
    heads = "model.roi_heads" if hasattr(model, "roi_heads") else "model"
    parts = []
    if "bbox" in tasks:
        parts.append((heads, "num_classes", dataset.classes()))
    if "sem_seg" in tasks:
        parts.append(("model.sem_seg_head.predictor", "out_channels", dataset.semantic_classes(tasks)))
    for place, attribute, names in parts:
        known = getattr(model.get_submodule(place.partition(".")[2]), attribute)
        if len(names) > known:
            raise ConfigError(
                f"the dataset has {len(names)} classes and {place.removesuffix('.predictor')}.num_classes="
                f"{known}: leave num_classes out, it follows from the data"
            )
