"""Losses of the latest steps, read from the device together.

To read a number, a process waits until the GPU has computed it, and meanwhile the GPU gets no new work.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np
import torch
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from omegaconf import DictConfig
from torch import Tensor

from ..errors import ConfigError
from .agreement import any_process

__all__ = ["LossReader", "NotFinite", "NotFiniteError", "OnNan", "on_nan"]


class NotFiniteError(ConfigError):
    """A loss is not a finite number: the training has diverged."""


@dataclass(frozen=True)
class OnNan:
    """What happens if a loss is not finite.

    Attributes:
        skip: number of steps of the run that are left out.
        go_back: how often, after that, the run goes back to its last checkpoint.
        lr_factor: factor of the learning rate each time that the run goes back, 0 < lr_factor < 1.
    """

    skip: int = 0
    go_back: int = 0
    lr_factor: float = 0.5


def on_nan(train: DictConfig) -> OnNan:
    """What the node ``train`` says about losses that are not finite; configs of version 0.1 say nothing."""
    return OnNan(**train.get("on_nan", {}))


@dataclass(frozen=True)
class _Step:
    """What is known about a step before its losses are read."""

    iteration: int
    losses: Mapping[str, Tensor]
    data_seconds: float
    images: Sequence[Any]


@dataclass(frozen=True)
class NotFinite:
    """The first step with a loss that is not a finite number.

    Attributes:
        iteration: of the step.
        problem: the losses and the images of all processes in which it is not.
    """

    iteration: int
    problem: str


class LossReader:
    """Keeps losses on the device until they are read, and writes them to the storage of the trainer.

    All processes call its methods at the same steps.
    """

    def __init__(self) -> None:
        self._steps: list[_Step] = []

    def add(
        self, iteration: int, losses: Mapping[str, Tensor], data_seconds: float, images: Sequence[Any]
    ) -> None:
        """Add a step.

        Args:
            iteration: number of the step.
            losses: name -> scalar on the device, without a graph.
            data_seconds: time in which this process waited for its images.
            images: inputs of the detector, of which only the names are kept.
        """
        names = [image.get("image_id", image.get("file_name")) for image in images if isinstance(image, dict)]
        self._steps.append(_Step(iteration, losses, data_seconds, names))

    def read(self, storage: EventStorage) -> NotFinite | None:
        """Read the losses of all steps since the last call, and log their means over the processes.

        Returns:
            The first step whose losses are not finite in all processes; it and later ones are not logged.
        """
        steps, self._steps = self._steps, []
        values = list(_on_host(steps))
        infinite = next((i for i, losses in enumerate(values) if not _finite(losses)), None)
        problem = None
        if any_process(infinite is not None):
            firsts = [first for first in comm.all_gather(infinite) if first is not None]
            infinite = min(firsts)
            problem = _describe(steps[infinite], values[infinite])
        _log(storage, steps[:infinite], values[:infinite])
        return problem


def _on_host(steps: Sequence[_Step]) -> Iterator[dict[str, float]]:
    """The losses of each step, copied in one transfer."""
    if not steps:
        return
    numbers = iter(torch.cat([torch.stack([*step.losses.values()]) for step in steps]).tolist())
    for step in steps:
        yield {name: next(numbers) for name in step.losses}


def _finite(losses: Mapping[str, float]) -> bool:
    return all(map(isfinite, losses.values()))


def _describe(step: _Step, losses: Mapping[str, float]) -> NotFinite:
    own = ""
    if not _finite(losses):
        values = ", ".join(f"{name}={value:g}" for name, value in losses.items())
        own = f"{values} for the images {list(step.images)}"
    parts: list[str] = comm.all_gather(own)
    problem = " and ".join(filter(None, parts))
    return NotFinite(step.iteration, f"a loss is not finite at iteration {step.iteration}: {problem}")


def _log(storage: EventStorage, steps: Sequence[_Step], values: Sequence[Mapping[str, float]]) -> None:
    """Write the scalars that detectron2's trainer writes, in its order."""
    own = [{**losses, "data_time": step.data_seconds} for step, losses in zip(steps, values, strict=True)]
    for step in steps:
        storage.put_scalar("rank_data_time", step.data_seconds, cur_iter=step.iteration)
    processes = comm.gather(own)
    if not comm.is_main_process():
        return
    for step, *scalars in zip(steps, *processes, strict=True):
        slowest = np.max([each.pop("data_time") for each in scalars])
        storage.put_scalar("data_time", slowest, cur_iter=step.iteration)
        means = {name: np.mean([each[name] for each in scalars]) for name in scalars[0]}
        storage.put_scalar("total_loss", sum(means.values()), cur_iter=step.iteration)
        if len(means) > 1:
            storage.put_scalars(cur_iter=step.iteration, **means)
