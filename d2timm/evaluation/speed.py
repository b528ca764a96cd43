"""The speed of a detector during evaluation."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeAlias

import torch

__all__ = ["Speed"]

WARM_UP = 5  # first calls that are not timed, as in detectron2's inference_on_dataset

Mark: TypeAlias = "float | torch.cuda.Event"  # seconds of a clock, or a point in the work of a GPU


class Speed:
    """Times the calls of a detector, without reading images and computing metrics.

        speed = Speed()
        for images in loader:
            with speed.call(len(images)):
                model(images)
        speed.images_per_second

    A GPU notes the times itself, so that it need not wait for the end of each call.

    Args:
        device: of the detector.
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self._on_gpu = torch.device(device).type == "cuda"
        self._calls: list[tuple[int, Mark, Mark]] = []  # images, start, end

    @contextmanager
    def call(self, images: int) -> Iterator[None]:
        """Time a call with a number of images; one that fails does not count."""
        start = self._now()
        yield
        self._calls.append((images, start, self._now()))

    @property
    def images_per_second(self) -> float | None:
        """Images per second, without the first calls, which are slower; None if there was no call."""
        if self._on_gpu:
            torch.cuda.synchronize()
        calls = self._calls[WARM_UP:] or self._calls
        seconds = sum(_seconds(start, end) for _, start, end in calls)
        return sum(images for images, _, _ in calls) / seconds if seconds else None

    def _now(self) -> Mark:
        if not self._on_gpu:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event


def _seconds(start: Mark, end: Mark) -> float:
    """The time between two marks of the same kind."""
    if isinstance(start, float) and isinstance(end, float):
        return end - start
    return float(start.elapsed_time(end)) / 1000  # type: ignore[union-attr, arg-type]
