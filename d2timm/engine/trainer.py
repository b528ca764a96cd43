"""A training step over one batch or several, in full or mixed precision, on the GPU or the CPU."""

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

#: What matrix products are computed in under automatic mixed precision, by its name in a config.
PRECISIONS = {"fp16": torch.float16, "bf16": torch.bfloat16}


class Trainer(SimpleTrainer):
    """detectron2's trainer, with gradients accumulated over batches and mixed precision on any device.

    An iteration is one step of the optimizer::

        for batch in (so many) batches:
            losses = model(batch)           # under autocast
            (sum(losses) / batches).backward()
        optimizer.step()

    N batches of B images give the step of one batch of N * B, but for what a detector does a batch at a
    time: batch statistics, and losses divided by the objects or regions of a batch. What is logged of an
    iteration is the mean over its batches. In DistributedDataParallel, processes exchange gradients once
    an iteration.

    Args:
        model: on its device; gives a dict of losses, each a scalar.
        loader: batches, without an end.
        optimizer: of the model's parameters.
        accumulate: batches an iteration, >= 1.
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
        for left in reversed(range(self.accumulate)):
            start = time.perf_counter()
            batch = next(self._data_loader_iter)
            seconds += time.perf_counter() - start
            with self._exchange(last=not left):
                for name, loss in self._backward(batch).items():
                    losses[name].append(loss.detach())
        self.after_backward()
        # raises FloatingPointError unless all are finite
        self._write_metrics({name: torch.stack(each).mean() for name, each in losses.items()}, seconds)
        # Not in the step: fused optimizers would unscale after gradients are clipped
        self.grad_scaler.unscale_(self.optimizer)
        self.grad_scaler.step(self.optimizer)
        self.grad_scaler.update()

    def _backward(self, batch: Any) -> dict[str, Tensor]:
        """Add a batch's share to the gradients."""
        dtype = PRECISIONS[self.precision] if self.precision else None
        with torch.autocast(self.device_type, dtype, enabled=dtype is not None):
            losses: dict[str, Tensor] = self.model(batch)
        total: Any = sum(losses.values())
        self.grad_scaler.scale(total / self.accumulate).backward()
        return losses

    def _exchange(self, last: bool) -> AbstractContextManager[Any]:
        """Keep gradients to this process until the last batch."""
        alone = last or not isinstance(self.model, DistributedDataParallel)
        return nullcontext() if alone else self.model.no_sync()

    def state_dict(self) -> dict[str, Any]:
        """As detectron2's AMPTrainer has it, ``grad_scaler`` where gradients are scaled."""
        scaler = {"grad_scaler": self.grad_scaler.state_dict()} if self.grad_scaler.is_enabled() else {}
        return {**super().state_dict(), **scaler}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on; a run may be resumed in another precision."""
        super().load_state_dict(state_dict)
        if self.grad_scaler.is_enabled() and "grad_scaler" in state_dict:
            self.grad_scaler.load_state_dict(state_dict["grad_scaler"])


def build_trainer(
    train: DictConfig, model: nn.Module, loader: Iterable[Any], optimizer: torch.optim.Optimizer
) -> Trainer:
    """Make the trainer that the node ``train`` describes."""
    precision = train.amp.get("precision", "fp16") if train.amp.enabled else None
    return Trainer(model, loader, optimizer, train.get("accumulate", 1), precision)
