"""Distribute a detector among the processes of a run: a copy in each of them, or a share."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from detectron2.engine import create_ddp_model
from omegaconf import DictConfig
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook
from torch.nn.parallel import DistributedDataParallel

from .trainer import Trainer

__all__ = ["distribute"]


def distribute(train: DictConfig, model: nn.Module) -> tuple[nn.Module, nn.Module, Callable[..., Trainer]]:
    """Distribute a detector as ``train.shard`` and ``train.ddp`` say.

    Args:
        train: the node ``train``.
        model: the detector on its device; with ``train.shard`` it is sharded in place.

    Returns:
        (model to train, model with whole weights to save and to evaluate, class of the trainer).
    """
    if train.get("shard"):
        from .sharding import ShardedTrainer, shard, whole_copy

        whole = whole_copy(model)
        shard(model, train.device)
        return model, whole, partial(ShardedTrainer, whole)
    options: dict[str, Any] = dict(train.ddp)
    bf16 = options.pop("bf16_compression", False)
    if train.device == "cpu":
        options["device_ids"] = None
    parallel = create_ddp_model(model, **options)
    if bf16 and isinstance(parallel, DistributedDataParallel):
        parallel.register_comm_hook(None, bf16_compress_hook)
    return parallel, model, Trainer
