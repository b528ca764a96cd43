"""Check that the batch norms of a detector can be trained with the images that a process has at a time."""

from __future__ import annotations

from functools import partial

import torch
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..backbone.meta import MetaRun
from ..errors import ConfigError

__all__ = ["check_batch_norms"]

BOTTOM_UP = "bottom_up."


def check_batch_norms(cfg: DictConfig, model: nn.Module, image: Tensor, processes: int) -> None:
    """Check that no batch norm in training has a single value per channel, which has no variance.

    This is the case behind a global pooling, as in squeeze-and-excitation, for a single image.

    Args:
        cfg: the tree; ``dataloader.train.total_batch_size`` is used.
        model: the detector on ``meta``; it is left in eval mode.
        image: (1, C, H, W) on ``meta``, of a size that the detector accepts.
        processes: number of processes of the run, >= 1.

    Raises:
        ConfigError: the first training step would fail.
    """
    batch = cfg.dataloader.train.total_batch_size
    if batch // processes > 1:
        return
    backbone = model.get_submodule("backbone").train()  # frozen parts stay in eval mode
    trained: dict[str, nn.Module] = {
        name: module
        for name, module in backbone.named_modules()
        if isinstance(module, _BatchNorm)
        and module.training
        and not (isinstance(module, nn.SyncBatchNorm) and processes > 1)
    }
    names = _single_valued(backbone, trained, image)
    if not names:
        return
    own = [name for name in names if not name.startswith(BOTTOM_UP)]  # of the neck
    fix = "" if own else "model.backbone.bottom_up.norm=FrozenBN or "
    raise ConfigError(
        f"dataloader.train.total_batch_size={batch} is one image per process, for which {len(names)} batch "
        f"norms, such as model.backbone.{(own or names)[0]}, have one value per channel and no variance: "
        f"use {fix}dataloader.train.total_batch_size={2 * processes}"
    )


def _single_valued(backbone: nn.Module, norms: dict[str, nn.Module], image: Tensor) -> list[str]:
    """The names of the norms whose input for an image has one value per channel."""
    found = []

    def note(module: nn.Module, inputs: tuple[Tensor, ...], name: str) -> None:
        if inputs[0].numel() == inputs[0].shape[1]:
            found.append(name)

    hooks = [norm.register_forward_pre_hook(partial(note, name=name)) for name, norm in norms.items()]
    with torch.no_grad(), MetaRun():
        backbone.eval()(image)  # in training mode it would raise at the first of them
    for hook in hooks:
        hook.remove()
    return found
