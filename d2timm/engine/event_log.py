"""Losses and metrics of a run over time, for the terminal, ``metrics.json``, TensorBoard and services.

A run that continues writes each iteration once, with the values that it would have had without interruption.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from detectron2.engine import HookBase
from detectron2.utils.events import CommonMetricPrinter, EventWriter, JSONWriter, TensorboardXWriter

from ..utils.files import atomic_write
from ..utils.text import one_line

__all__ = ["EventLog"]

logger = logging.getLogger(__name__)

FILE = "metrics.json"
WINDOW = 20  # iterations over which writers smooth noisy scalars


class EventLog(HookBase):
    """Writes the scalars of a run, periodically and at its end.

    Register it last, and only in the first process.

    Args:
        folder: the run folder.
        max_iter: length of the schedule in iterations, for the remaining time.
        period: iterations between writes.
        open_services: opens writers to services; its argument is the last iteration that they have received.
    """

    def __init__(
        self,
        folder: Path,
        max_iter: int,
        period: int,
        open_services: Callable[[int], Sequence[EventWriter]] = lambda written: (),
    ) -> None:
        self.folder, self.max_iter, self.period = folder, max_iter, period
        self.open_services = open_services
        self.written = -1  # the last iteration that has been written
        self.recent: dict[str, Any] = {}  # scalar -> (whether it is smoothed, its last values by iteration)
        self.writers: list[EventWriter] = []

    def before_train(self) -> None:
        """Open the writers, and remove what an interrupted run has written after its checkpoint."""
        for name, (smoothed, values) in self.recent.items():
            for value, iteration in values:
                self.trainer.storage.put_scalar(name, value, smoothing_hint=smoothed, cur_iter=iteration)
        drop_after(self.folder / FILE, self.written)
        self.writers = [
            CommonMetricPrinter(self.max_iter, WINDOW),
            _JSONWriter(self.folder / FILE, self.written),
            _TensorboardWriter(self.folder, self.written),
            *self.open_services(self.written),
        ]

    def after_step(self) -> None:
        """Write if it is time."""
        done = self.trainer.iter + 1
        if done % self.period == 0 or done == self.trainer.max_iter:
            self._write()

    def after_train(self) -> None:
        """Write what later hooks and the last evaluation have added."""
        self._write()
        for writer in self.writers:
            with suppress(OSError):  # _write has warned
                writer.close()

    def _write(self) -> None:
        for writer in self.writers:
            try:
                writer.write()
            except OSError as error:  # as on a full disk; what is missing is written later
                logger.warning("Metrics cannot be written: %s", one_line(error))
        latest = self.trainer.storage.latest().values()
        self.written = max((iteration for _, iteration in latest), default=self.written)

    def state_dict(self) -> dict[str, Any]:
        """Return the last values of all scalars, and which of them have been written."""
        storage = self.trainer.storage
        smoothed = storage.smoothing_hints()
        recent = {
            name: (smoothed[name], buffer.values()[-storage.count_samples(name, WINDOW) :])
            for name, buffer in storage.histories().items()
        }
        return {"written": self.written, "recent": recent}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue a run; its scalars are put into the storage when the training starts."""
        self.written, self.recent = state["written"], state["recent"]


class _JSONWriter(JSONWriter):
    """detectron2's writer of ``metrics.json``, which continues after an iteration."""

    def __init__(self, file: Path, written: int) -> None:
        super().__init__(str(file), WINDOW)
        self._last_write = written


class _TensorboardWriter(TensorboardXWriter):
    """detectron2's writer for TensorBoard, which continues after an iteration and hides what came later."""

    def __init__(self, folder: Path, written: int) -> None:
        if any(folder.glob(f"events.out.tfevents.{int(time.time())}.*")):
            time.sleep(1)  # TensorBoard reads files in the order of the seconds in their names
        super().__init__(str(folder), WINDOW, purge_step=written + 1)
        self._last_write = written

    def write(self) -> None:
        """Write to the present file; if that fails, the next call begins a new one."""
        try:
            super().write()
        except OSError:
            self.__dict__.pop("_writer", None)  # its thread has ended
            self._writer_args["purge_step"] = self._last_write + 1
            raise


def drop_after(file: Path, iteration: int) -> None:
    """Remove the lines of later iterations from a file of JSON lines, and a line that is cut off."""
    if not file.is_file():
        return
    lines = file.read_text().splitlines(keepends=True)
    kept = [line for line in lines if _iteration(line) <= iteration]
    if kept != lines:
        with atomic_write(file) as partial:
            partial.write_text("".join(kept))


def _iteration(line: str) -> float:
    try:
        return float(json.loads(line)["iteration"]) if line.endswith("\n") else math.inf
    except (ValueError, TypeError, KeyError):
        return math.inf
