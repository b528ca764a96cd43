"""``result.json``: what a run folder says of its run, at any moment."""

from __future__ import annotations

import json
import math
import os
import re
import resource
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from threading import Lock

from ..errors import ConfigError
from ..utils.files import atomic_write, try_lock
from ..utils.text import error_reason

__all__ = ["FILE", "Record", "is_held", "move_aside", "recorded"]

FILE = "result.json"
LOCK = ".lock"
_HELD: set[Path] = set()  # run folders that this process trains in
_WRITING = Lock()  # a run's own thread writes its record, and one that sees it being cut off


@dataclass
class Record:
    """The state of a run.

    Attributes:
        status: ``running`` (also of a run that was killed), ``done`` or ``failed``.
        command: the command line that gives this run again, but for its folder.
        model_name: timm's name of the backbone.
        parameters: of the whole detector.
        multiply_adds: of backbone and neck, for an image of the size that is evaluated.
        labels: names of what the detector tells apart, ``data.labels`` of a tree that needs no data files.
        iterations: trained so far.
        max_iter: of the whole schedule.
        train_seconds: spent training so far, resumed parts included.
        images_per_second: in the latest evaluation, the detector alone.
        peak_memory_bytes: on the GPU, or of the process where there is none.
        metrics: ``{"bbox": {"AP": …}, …}`` in percent; null where the set has no such object.
        metric: the one that runs are compared by, such as ``bbox/AP``.
        scores: (iterations, that metric) of each evaluation.
        best_score: that of ``model_best.pth``, the highest yet.
        best_iterations: after which it was evaluated.
        stopped: why it ended before its schedule did.
        error: why it failed.
        pid: of the process that trains.
        host: the machine on which it trains.
    """

    status: str = "running"
    command: list[str] = field(default_factory=list)
    model_name: str = ""
    parameters: int = 0
    multiply_adds: int = 0
    labels: dict[str, list[str]] = field(default_factory=dict)
    iterations: int = 0
    max_iter: int = 0
    train_seconds: float = 0.0
    images_per_second: float | None = None
    peak_memory_bytes: int = 0
    metrics: dict[str, dict[str, float | None]] = field(default_factory=dict)
    metric: str = "bbox/AP"
    scores: list[tuple[int, float]] = field(default_factory=list)
    best_score: float | None = None
    best_iterations: int | None = None
    stopped: str | None = None
    error: str | None = None
    pid: int = field(default_factory=os.getpid)
    host: str = field(default_factory=socket.gethostname)

    @classmethod
    def read(cls, folder: Path) -> Record | None:
        """The record in a run folder, or None if it has none."""
        try:
            told = json.loads((folder / FILE).read_text())
        except FileNotFoundError:
            return None
        known = {f.name for f in fields(cls)}
        record = cls(**{"pid": 0, "host": "", **{key: told[key] for key in told if key in known}})
        record.scores = [(int(iterations), float(score)) for iterations, score in record.scores]
        return record

    @property
    def score(self) -> float | None:
        """The latest value of the metric that runs are compared by."""
        task, _, key = self.metric.partition("/")
        return self.metrics.get(task, {}).get(key)

    def write(self, folder: Path) -> None:
        """Put the record into a run folder."""
        with _WRITING, atomic_write(folder / FILE) as partial:
            partial.write_text(json.dumps(asdict(self), indent=2) + "\n")

    def measure_memory(self) -> None:
        """Take over the most memory that the run has needed so far."""
        self.peak_memory_bytes = max(self.peak_memory_bytes, peak_memory())

    def set_metrics(self, metrics: Mapping[str, Mapping[str, float | None]]) -> None:
        """Take over an evaluation; JSON has no nan.

        Raises:
            ConfigError: the metric that runs are compared by is not in it.
        """
        self.metrics = {
            task: {
                key: value if value is not None and math.isfinite(value) else None
                for key, value in numbers.items()
            }
            for task, numbers in metrics.items()
        }
        task, _, key = self.metric.partition("/")
        if key not in self.metrics.get(task, {}):
            there = ", ".join(f"{task}/{key}" for task, keys in self.metrics.items() for key in keys)
            raise ConfigError(f"train.metric={self.metric}: the evaluation gives {there or 'nothing'}")
        if self.score is not None:
            earlier = [score for score in self.scores if score[0] < self.iterations]
            self.scores = [*earlier, (self.iterations, self.score)]

    def note_best(self) -> bool:
        """Note the latest score as the best if it is higher than all before; returns whether it is."""
        if self.score is None or (self.best_score is not None and self.score <= self.best_score):
            return False
        self.best_score, self.best_iterations = self.score, self.iterations
        return True

    def compare_by(self, metric: str) -> None:
        """Set the metric that runs are compared by; scores of another are forgotten."""
        if metric != self.metric:
            self.metric, self.scores = metric, []
            self.best_score = self.best_iterations = None

    def take_over(self, earlier: Record) -> None:
        """Go on where an earlier part of this run has ended."""
        self.train_seconds, self.iterations = earlier.train_seconds, earlier.iterations
        self.peak_memory_bytes = earlier.peak_memory_bytes
        self.metrics, self.scores = earlier.metrics, earlier.scores
        self.best_score, self.best_iterations = earlier.best_score, earlier.best_iterations


@contextmanager
def recorded(record: Record, folder: Path) -> Iterator[None]:
    """Keep the record of a run true while it runs: done at the end, or failed with the reason.

    A run that is interrupted or killed has neither failed nor ended: it stays ``running``, and can be
    resumed. That nobody trains it any more, ``is_held`` tells.
    """
    with _held(folder):
        reset_peak_memory()
        record.write(folder)
        try:
            yield
        except BaseException as error:
            record.status = "failed" if isinstance(error, Exception) else "running"
            record.error = error_reason(error)
            record.measure_memory()
            record.write(folder)
            raise
        record.status = "done"
        record.measure_memory()
        record.write(folder)


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Hold a run folder, so that no other process trains in it."""
    folder = folder.resolve()
    with (folder / LOCK).open("w") as lock:
        if not try_lock(lock):
            time.sleep(0.3)  # one that only looks, in is_held, holds it for a moment
            if not try_lock(lock):
                raise ConfigError(f"{folder}: another process trains there")
        _HELD.add(folder)
        try:
            yield
        finally:
            _HELD.remove(folder)


def is_held(folder: Path) -> bool:
    """Whether a process trains in a run folder at this moment."""
    folder = folder.resolve()
    if folder in _HELD:
        return True  # to open the file here and close it would let go of the lock
    try:
        with (folder / LOCK).open() as lock:
            return not try_lock(lock, exclusive=False)
    except FileNotFoundError:
        return False


def reset_peak_memory() -> None:
    """Forget what earlier runs of this process needed."""
    import torch  # here and below: reports read records without waiting for it

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with suppress(OSError):  # Linux only
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory() -> int:
    """The most bytes that the run has used so far: of GPU memory, or of its process without a GPU."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    with suppress(OSError):
        found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
        if found:
            return int(found[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def move_aside(folder: Path) -> None:
    """Keep an earlier run in the folder under the first free name with a number.

    Raises:
        ConfigError: the run is no earlier one: it goes on.
    """
    if not (folder / FILE).is_file():
        return
    if is_held(folder):  # since this command has looked
        raise ConfigError(f"{folder}: another process trains there")
    number = 1
    while (kept := folder.with_name(f"{folder.name}~{number}")).exists():
        number += 1
    folder.rename(kept)
    print(f"{folder} held an earlier run, which is now {kept} (--resume would have gone on with it)")
