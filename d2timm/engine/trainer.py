"""A training step over one or more batches, in full or mixed precision, on a GPU or the CPU."""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from detectron2.engine import HookBase, SimpleTrainer, TrainerBase
from detectron2.utils import comm
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ..data.loader import TrainLoader
from ..modeling.host_waits import without_statistics
from ..utils.seeds import seed_generators
from ..utils.text import one_line
from .losses import LossReader, NotFiniteError, on_nan
from .optimizer_options import apply_changed_options, options_of

__all__ = [
    "PRECISIONS",
    "Trainer",
    "build_trainer",
    "precision_of",
]

logger = logging.getLogger(__name__)

ADVICE = "lower optimizer.lr, or see train.on_nan; the last checkpoint is from before"
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
        seed: seed of dropout, of sampled proposals and of all else that is random in a step, >= 0; None: a
            random one.
        max_skipped: number of steps of the run that may be left out because a loss is not finite.
        read_period: steps after which losses are read from the device; until then nobody knows whether they
            are finite, and heads compute no statistics for the log. 1 if steps may be left out, and on the
            CPU, where reading costs nothing.
        split_on_oom: whether a batch that does not fit into the memory of the GPU is divided into two, whose
            gradients are accumulated; in a single process only.

    Attributes:
        unfinished: hooks of the last iteration that a checkpoint does not include; they run before a training
            that continues from it.
    """

    unfinished: Sequence[HookBase] = ()

    def __init__(
        self,
        model: nn.Module,
        loader: Iterable[Any],
        optimizer: torch.optim.Optimizer,
        accumulate: int = 1,
        precision: str | None = None,
        seed: int | None = None,
        max_skipped: int = 0,
        split_on_oom: bool = False,
        read_period: int = 1,
    ) -> None:
        super().__init__(model, loader, optimizer)
        self.seed, self.given_seed = comm.shared_random_seed() if seed is None else seed, seed
        self.options = options_of(optimizer)
        self.max_skipped, self.skipped = max_skipped, 0
        self.split_on_oom = split_on_oom
        self.accumulate = accumulate
        self.precision = precision
        self.device_type = next(model.parameters()).device.type
        self.read_period = 1 if self.device_type == "cpu" or max_skipped else read_period
        self.losses = LossReader()
        self.grad_scaler = torch.amp.GradScaler(self.device_type, enabled=precision == "fp16")

    def before_train(self) -> None:
        """Prepare hooks, and complete the iteration of the checkpoint from which the training continues."""
        super().before_train()
        if self.unfinished:
            self.iter = self.storage.iter = self.start_iter - 1
            for hook in self.unfinished:
                hook.after_step()

    def run_step(self) -> None:
        """Take one step of the optimizer."""
        self.optimizer.zero_grad()
        losses: dict[str, list[Tensor]] = defaultdict(list)
        images: list[Any] = []
        seconds = 0.0
        for index in range(self.accumulate):
            start = time.perf_counter()
            batch = next(self._data_loader_iter)
            seconds += time.perf_counter() - start
            images += batch
            seed_generators(self.seed, self.iter, index, comm.get_rank())
            with self._exchange(last=index == self.accumulate - 1):
                for name, loss in self._losses(batch).items():
                    losses[name].append(loss.detach())
        self.after_backward()
        means = {name: torch.stack(each).mean() for name, each in losses.items()}
        self.losses.add(self.iter, means, seconds, images)
        if self._reads_losses and not self.read_losses():
            return
        # Unscale before the step: fused optimizers would unscale after the gradients are clipped
        self.grad_scaler.unscale_(self.optimizer)
        self.grad_scaler.step(self.optimizer)
        self.grad_scaler.update()

    @property
    def _reads_losses(self) -> bool:
        """Whether losses, and with them statistics of the heads, are logged after this iteration."""
        return bool((self.iter + 1) % self.read_period == 0)

    def _losses(self, batch: Any) -> dict[str, Tensor]:
        """Add the gradients of a batch; return the losses.

        Raises:
            NotFiniteError: the detector has no boxes or scores that are finite numbers.
        """
        try:
            return self._backward(batch)
        except FloatingPointError as error:  # of detectron2
            if comm.get_world_size() == 1:
                self.read_losses()  # which raises if an earlier step was the cause
            raise NotFiniteError(f"{one_line(error)} (iteration {self.iter}); {ADVICE}") from error

    def read_losses(self) -> bool:
        """Read and log the losses of the latest steps; call it in all processes.

        Returns:
            Whether they are finite in all processes; if not, the present step is left out.

        Raises:
            NotFiniteError: they are not, and no more steps may be left out.
        """
        not_finite = self.losses.read(self.storage)
        if not_finite is None:
            return True
        if self.skipped >= self.max_skipped:
            raise NotFiniteError(f"{not_finite.problem}; {ADVICE}")
        self.skipped += 1
        logger.warning(
            "%s; this step is left out, number %d of %d", not_finite.problem, self.skipped, self.max_skipped
        )
        return False

    def _backward(self, batch: Any, share: float = 1.0) -> dict[str, Tensor]:
        """Add the gradients of a batch, divided by the number of batches; return the losses."""
        try:
            return self._add_gradients(batch, share)
        except torch.OutOfMemoryError:
            if not (self.split_on_oom and share == 1 and len(batch) > 1 and comm.get_world_size() == 1):
                raise
        logger.warning("Out of memory at iteration %d: its batch is divided into two", self.iter)
        self.optimizer.zero_grad()
        torch.cuda.empty_cache()
        middle = len(batch) // 2
        halves = [
            self._add_gradients(half, len(half) / len(batch)) for half in (batch[:middle], batch[middle:])
        ]
        return {
            name: (halves[0][name] * middle + halves[1][name] * (len(batch) - middle)) / len(batch)
            for name in halves[0]
        }

    def _add_gradients(self, batch: Any, share: float) -> dict[str, Tensor]:
        dtype = PRECISIONS[self.precision] if self.precision else None
        statistics = nullcontext() if self._reads_losses else without_statistics()
        with statistics, torch.autocast(self.device_type, dtype, enabled=dtype is not None):
            losses: dict[str, Tensor] = self.model(self._on_device(batch))
        total: Any = sum(losses.values())
        self.grad_scaler.scale(total * share / self.accumulate).backward()
        return losses

    def _on_device(self, batch: Any) -> Any:
        """Start to copy pinned images to the GPU; detectron2 would wait for each."""
        if self.device_type != "cuda":
            return batch
        device = torch.device(self.device_type, torch.cuda.current_device())
        return [{**each, "image": each["image"].to(device, non_blocking=True)} for each in batch]

    def _exchange(self, last: bool) -> AbstractContextManager[Any]:
        """A context in which processes exchange gradients at the last batch only."""
        if last or not isinstance(self.model, DistributedDataParallel):
            return nullcontext()
        return self.model.no_sync()

    def gather(self) -> None:
        """Prepare what a checkpoint contains; all processes call it. Here, each of them has it."""

    def scatter(self) -> None:
        """Take the weights of a checkpoint from the model that the run saves. Here, it is the same."""

    def whole_weights(self) -> AbstractContextManager[None]:
        """A context in which the model that the run evaluates has the present weights; in all processes."""
        return nullcontext()

    def _state_of_optimizer(self) -> dict[str, Any]:
        state: dict[str, Any] = self.optimizer.state_dict()
        return state

    def _load_optimizer(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state)

    def state_dict(self) -> dict[str, Any]:
        """Return the state, with ``grad_scaler`` as in detectron2's AMPTrainer if gradients are scaled."""
        state = {**super().state_dict(), "optimizer": self._state_of_optimizer()}
        state.update(seed=self.seed, options=self.options, skipped=self.skipped)
        if self.grad_scaler.is_enabled():
            state["grad_scaler"] = self.grad_scaler.state_dict()
        if isinstance(self.data_loader, TrainLoader):
            state["loader"] = self.data_loader.state_dict()
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state; it may come from a run in another precision, and of an earlier version.

        Options of the optimizer that the config has changed since then take effect.
        """
        TrainerBase.load_state_dict(self, state_dict)
        self._load_optimizer(state_dict["optimizer"])
        apply_changed_options(self.optimizer, state_dict.get("options"), self.options)
        self.skipped = state_dict.get("skipped", 0)
        if self.given_seed is None:
            self.seed = state_dict.get("seed", self.seed)
        if "loader" in state_dict and isinstance(self.data_loader, TrainLoader):
            self.data_loader.load_state_dict(state_dict["loader"])
        else:
            logger.warning(
                "The order and the augmentation of the images start anew: %s",
                "the loader cannot continue"
                if "loader" in state_dict
                else "the checkpoint has no state of the loader, as those of d2timm 0.1",
            )
        if self.grad_scaler.is_enabled() and "grad_scaler" in state_dict:
            self.grad_scaler.load_state_dict(state_dict["grad_scaler"])


def build_trainer(
    train: DictConfig,
    model: nn.Module,
    loader: Iterable[Any],
    optimizer: torch.optim.Optimizer,
    kind: Callable[..., Trainer] = Trainer,
) -> Trainer:
    """Build the trainer that the node ``train`` configures; ``kind`` takes the arguments of ``Trainer``."""
    seed = None if train.seed is None or train.seed < 0 else train.seed
    return kind(
        model,
        loader,
        optimizer,
        train.get("accumulate", 1),
        precision_of(train),
        seed,
        on_nan(train).skip,
        bool(train.get("split_on_oom")),
        train.get("log_period", 1),
    )


def precision_of(train: DictConfig) -> str | None:
    """One of ``PRECISIONS``, or None for float32; configs of version 0.1 know fp16 only."""
    return train.amp.get("precision", "fp16") if train.amp.enabled else None
