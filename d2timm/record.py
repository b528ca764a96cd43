"""``result.json``: what a run folder says of its run, at any moment."""

from __future__ import annotations

import json
import math
import resource
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from detectron2.engine import HookBase

from .files import whole

__all__ = ["Record", "RecordProgress", "recorded"]

FILE = "result.json"


@dataclass
class Record:
    """The state of a run.

    Attributes:
        status: ``running`` (also of a run that was killed), ``done`` or ``failed``.
        model_name: timm's name of the backbone.
        parameters: of the whole detector.
        iterations: trained so far.
        train_seconds: spent training so far, resumed parts included.
        peak_memory_bytes: on the GPU, or of the process where there is none.
        metrics: ``{"bbox": {"AP": …}, …}`` in percent; null where the set has no such object.
        error: why it failed.
    """

    status: str = "running"
    model_name: str = ""
    parameters: int = 0
    iterations: int = 0
    train_seconds: float = 0.0
    peak_memory_bytes: int = 0
    metrics: dict[str, dict[str, float | None]] = field(default_factory=dict)
    error: str | None = None

    @classmethod
    def read(cls, folder: Path) -> Record | None:
        """The record in a run folder, or None if it has none."""
        file = folder / FILE
        return cls(**json.loads(file.read_text())) if file.is_file() else None

    def write(self, folder: Path) -> None:
        """Put the record into a run folder, with the memory used so far."""
        self.peak_memory_bytes = max(self.peak_memory_bytes, peak_memory())
        with whole(folder / FILE) as partial:
            partial.write_text(json.dumps(asdict(self), indent=2) + "\n")

    def set_metrics(self, metrics: Mapping[str, Mapping[str, float | None]]) -> None:
        """Take over an evaluation; JSON has no nan."""
        self.metrics = {
            task: {
                key: value if value is not None and math.isfinite(value) else None
                for key, value in numbers.items()
            }
            for task, numbers in metrics.items()
        }


class RecordProgress(HookBase):
    """Keeps a record's iterations and seconds, and writes it every ``period`` iterations."""

    def __init__(self, record: Record, folder: Path, period: int) -> None:
        self.record, self.folder, self.period = record, folder, period

    def before_step(self) -> None:
        """Start the clock; evaluation, between steps, does not count."""
        self.start = time.monotonic()

    def after_step(self) -> None:
        """Count an iteration."""
        self.record.iterations = self.trainer.iter + 1
        self.record.train_seconds += time.monotonic() - self.start
        if self.record.iterations % self.period == 0:
            self.record.write(self.folder)


@contextmanager
def recorded(record: Record, folder: Path) -> Iterator[None]:
    """Keep the record of a run true while it runs: done at the end, or failed with the reason."""
    record.write(folder)
    try:
        yield
    except BaseException as error:
        record.status = "failed"
        record.error = f"{type(error).__name__}: {error}".splitlines()[0]
        record.write(folder)
        raise
    record.status = "done"
    record.write(folder)


def peak_memory() -> int:
    """The most bytes that the process has used so far: of GPU memory, or of its own without a GPU."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
