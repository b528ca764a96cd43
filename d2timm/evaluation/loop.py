"""Run a detector on a dataset and evaluate its detections.

for images in loader: detector -> outputs -> each evaluator;  then: metrics, images per second
"""

from __future__ import annotations

import datetime
import logging
import time
from collections.abc import Iterator, MutableSequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from detectron2.evaluation import DatasetEvaluator, DatasetEvaluators, inference_context
from detectron2.utils.logger import log_every_n_seconds
from torch import nn

from .coco import CocoEvaluator
from .roi_masks import Detector, without_pasting
from .speed import WARM_UP, Speed

__all__ = ["detect_and_evaluate"]

logger = logging.getLogger(__name__)

LOG_PERIOD = 5  # seconds


def detect_and_evaluate(
    model: nn.Module, loader: Any, evaluators: MutableSequence[DatasetEvaluator] | DatasetEvaluator | None
) -> tuple[dict[str, Any], float | None]:
    """Evaluate a detector, like detectron2's ``inference_on_dataset``, and time it.

    An R-CNN that is evaluated by ``CocoEvaluator`` alone does not paste its masks into images, and its speed
    is without that.

    Args:
        model: the detector, which is in the mode of evaluation meanwhile.
        loader: yields lists of dataset dicts, and has a length.
        evaluators: one or more.

    Returns:
        The metrics of all evaluators, {} except in the main process; and the images per second of the
        detector alone, None if there was no image.
    """
    several = isinstance(evaluators, MutableSequence)
    every = [*evaluators] if several else [evaluators] if evaluators else []  # type: ignore[misc]
    evaluator = DatasetEvaluators(every)
    first = next(model.parameters(), None)
    speed = Speed("cpu" if first is None else first.device)
    with ExitStack() as stack:
        coco = [e for e in every if isinstance(e, CocoEvaluator)]
        for one in coco:
            stack.callback(one.close)
        evaluator.reset()
        with inference_context(model), torch.no_grad():
            detect = without_pasting(model) if every and len(coco) == len(every) else model
            _detect(detect, loader, evaluator, speed)
        return dict(evaluator.evaluate()), speed.images_per_second


def _detect(detect: Detector, loader: Any, evaluator: DatasetEvaluator, speed: Speed) -> None:
    progress = _Progress(len(loader))
    batches = iter(loader)
    while True:
        with progress.part("Dataloading"):
            images = next(batches, None)
        if images is None:
            break
        with progress.part("Inference"), speed.call(len(images)):
            outputs = detect(images)
        with progress.part("Eval"):
            evaluator.process(images, outputs)
        progress.step()
    progress.end()


class _Progress:
    """Logs how far an evaluation is, and what takes the time.

    Args:
        total: number of batches.
    """

    def __init__(self, total: int) -> None:
        self.total, self.done = total, 0
        self._restart()
        logger.info("Start inference on %d batches", total)

    def _restart(self) -> None:
        self._start, self._first = time.perf_counter(), self.done
        self._seconds = {"Dataloading": 0.0, "Inference": 0.0, "Eval": 0.0}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Time a part of a step."""
        start = time.perf_counter()
        yield
        self._seconds[name] += time.perf_counter() - start

    def step(self) -> None:
        """Count a batch."""
        self.done += 1
        each, parts = self._averages()
        if self.done > 2 * WARM_UP or self._seconds["Inference"] > LOG_PERIOD:
            rest = datetime.timedelta(seconds=int(each * (self.total - self.done)))
            text = f"Inference done {self.done}/{self.total}. {parts} Total: {each:.4f} s/iter. ETA={rest}"
            log_every_n_seconds(logging.INFO, text, n=LOG_PERIOD, name=__name__)
        if self.done == min(WARM_UP, self.total - 1):  # the first batches are slower
            self._restart()

    def end(self) -> None:
        """Log the times of the whole evaluation."""
        each, parts = self._averages()
        logger.info("Inference on %d batches done. %s Total: %.4f s/iter.", self.done, parts, each)

    def _averages(self) -> tuple[float, str]:
        """Seconds of a batch, and of its parts as a text."""
        count = max(self.done - self._first, 1)
        parts = (f"{name}: {seconds / count:.4f} s/iter." for name, seconds in self._seconds.items())
        return (time.perf_counter() - self._start) / count, " ".join(parts)
