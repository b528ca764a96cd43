"""A training step over one or more batches, in full or mixed precision, on a GPU or the CPU."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from detectron2.engine import SimpleTrainer
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

__all__ = ["PRECISIONS", "Trainer", "build_trainer"]

#: Name in a config -> data type of matrix products under automatic mixed precision
PRECISIONS = {"fp16": torch.float16, "bf16": torch.bfloat16}


class Trainer(SimpleTrainer):
    """detectron2's trainer with gradient accumulation and with mixed precision on any device.

    An iteration is one step of the optimizer::

        for _ in range(accumulate):
            losses = model(next(loader))    # under autocast
            (sum(losses) / accumulate).backward()
        optimizer.step()

    N batches of B images give the same step as one batch of N * B, except where a detector depends on the
    batch: batch statistics, and losses that are divided by the number of objects or regions in a batch.
    Logged losses are means over the batches of an iteration. Under DistributedDataParallel, processes
    exchange gradients once per iteration.

    Args:
        model: the model, on its device; returns a dict of scalar losses.
        loader: an endless iterable of batches.
        optimizer: the optimizer of the model's parameters.
        accumulate: batches per iteration, >= 1.
        precision: one of ``PRECISIONS``, or None for float32. Gradients in fp16 are scaled against
            underflow (Micikevicius et al., https://arxiv.org/abs/1710.03740); bf16 has the range of float32.
    """

    def __init__(
        self,
        model: nn.Module,
        loader: Iterable[Any],
        optimizer: torch.optim.Optimizer,
        accumulate: int = 1,
        precision: str | None = None,
    ) -> None:
        super().__init__(model, loader, optimizer)
        self.accumulate = accumulate
        self.precision = precision
        self.device_type = next(model.parameters()).device.type
        self.grad_scaler = torch.amp.GradScaler(self.device_type, enabled=precision == "fp16")

    def run_step(self) -> None:
        """Take one step of the optimizer."""
        self.optimizer.zero_grad()
        losses: dict[str, list[Tensor]] = defaultdict(list)
        seconds = 0.0
        for index in range(self.accumulate):
            start = time.perf_counter()
            batch = next(self._data_loader_iter)
            seconds += time.perf_counter() - start
            with self._exchange(last=index == self.accumulate - 1):
                for name, loss in self._backward(batch).items():
                    losses[name].append(loss.detach())
        self.after_backward()
        # raises FloatingPointError if a loss is not finite
        self._write_metrics({name: torch.stack(each).mean() for name, each in losses.items()}, seconds)
        # Unscale before the step: fused optimizers would unscale after the gradients are clipped
        self.grad_scaler.unscale_(self.optimizer)
        self.grad_scaler.step(self.optimizer)
        self.grad_scaler.update()

    def _backward(self, batch: Any) -> dict[str, Tensor]:
        """Add the gradients of a batch, divided by the number of batches."""
        dtype = PRECISIONS[self.precision] if self.precision else None
        with torch.autocast(self.device_type, dtype, enabled=dtype is not None):
            losses: dict[str, Tensor] = self.model(batch)
        total: Any = sum(losses.values())
        self.grad_scaler.scale(total / self.accumulate).backward()
        return losses

    def _exchange(self, last: bool) -> AbstractContextManager[Any]:
        """A context in which processes exchange gradients at the last batch only."""
        if last or not isinstance(self.model, DistributedDataParallel):
            return nullcontext()
        return self.model.no_sync()

    def state_dict(self) -> dict[str, Any]:
        """Return the state, with ``grad_scaler`` as in detectron2's AMPTrainer if gradients are scaled."""
        scaler = {"grad_scaler": self.grad_scaler.state_dict()} if self.grad_scaler.is_enabled() else {}
        return {**super().state_dict(), **scaler}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state; it may come from a run in another precision."""
        super().load_state_dict(state_dict)
        if self.grad_scaler.is_enabled() and "grad_scaler" in state_dict:
            self.grad_scaler.load_state_dict(state_dict["grad_scaler"])


def build_trainer(
    train: DictConfig, model: nn.Module, loader: Iterable[Any], optimizer: torch.optim.Optimizer
) -> Trainer:
    """Build the trainer that the node ``train`` configures."""
    precision = train.amp.get("precision", "fp16") if train.amp.enabled else None
    return Trainer(model, loader, optimizer, train.get("accumulate", 1), precision)
