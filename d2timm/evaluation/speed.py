"""The speed of a detector during evaluation."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any

import torch
from torch import nn

__all__ = ["Speed"]

WARM_UP = 5  # first calls that are not timed, as in detectron2's inference_on_dataset


class Speed:
    """Context manager that times the calls of a model, without reading images and computing metrics.

        with Speed(model) as speed:
            evaluate(cfg, model)
        speed.images_per_second

    Args:
        model: a detector, whose argument is a list with one entry per image.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.calls: list[tuple[int, float]] = []  # images, seconds

    def __enter__(self) -> Speed:
        self._hooks = [
            self.model.register_forward_pre_hook(self._before),
            self.model.register_forward_hook(self._after),
        ]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for hook in self._hooks:
            hook.remove()

    @property
    def images_per_second(self) -> float | None:
        """Images per second, without the first calls, which are slower; None if there was no call."""
        calls = self.calls[WARM_UP:] or self.calls
        seconds = sum(seconds for _, seconds in calls)
        return sum(images for images, _ in calls) / seconds if seconds else None

    def _before(self, model: nn.Module, args: Any) -> None:
        self._start = _now()

    def _after(self, model: nn.Module, args: Any, output: Any) -> None:
        self.calls.append((len(args[0]), _now() - self._start))


def _now() -> float:
    """The time in seconds, after all work of the GPU is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()
