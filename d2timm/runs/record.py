"""``result.json``: the record of a run, up to date at any moment."""

from __future__ import annotations

import json
import logging
import math
import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from threading import Lock
from typing import Any, get_type_hints

from ..errors import ConfigError
from ..utils.files import atomic_write, remove_leftovers, try_lock
from ..utils.signals import Interrupted
from ..utils.text import error_reason, one_line
from ..utils.values import fits
from .memory import peak_memory, reset_peak_memory

__all__ = ["FILE", "Record", "hold", "is_held", "is_held_by_another", "record_failure", "recorded"]

logger = logging.getLogger(__name__)

FILE = "result.json"
LOCK = ".lock"
_HELD: set[Path] = set()  # run folders that this process trains in
_WRITING = Lock()  # the training thread and the one that watches for the end of the process both write


@dataclass
class Record:
    """The state of a run.

    Attributes:
        status: ``running`` (also after the process was killed), ``interrupted`` by a signal, ``done`` or
            ``failed``.
        command: the command line that repeats the run, except for its folder.
        model_name: timm's name of the backbone.
        parameters: number of parameters of the detector.
        multiply_adds: of backbone and neck, for an image of the evaluated size.
        labels: class names, as ``data.labels`` takes them to build the detector without annotation files.
        iterations: trained so far.
        max_iter: length of the schedule in iterations.
        train_seconds: training time so far, including the parts before a resume.
        images_per_second: of the detector alone, in the latest evaluation.
        peak_memory_bytes: of the GPU; of the process if there is no GPU.
        metrics: ``{"bbox": {"AP": …}, …}`` in percent; None if the dataset has no object to measure it on.
        metric: the metric that runs are compared by, such as ``bbox/AP``.
        scores: (iterations, value of that metric) of each evaluation.
        best_score: the highest score so far, which is that of ``model_best.pth``.
        best_iterations: iterations trained at the best score.
        skipped: split -> kind of finding -> number of samples of the dataset that were left out; the samples
            are listed in ``skipped.json``.
        notes: what a reader of the metrics should know.
        tuning: how the steps are computed (``ways``), and what was measured to choose it.
        recipe: the prior that ``train.recipe`` applied: ``name``, ``source`` and ``values``.
        heads: what ``train.init_heads`` filled: ``source``, ``taken`` and ``new``.
        times_back: how often the run went back to a checkpoint with a lower learning rate.
        stopped: why the run ended before its schedule did.
        error: why the run failed.
        pid: process that trains, 0 if unknown.
        host: machine that it runs on.
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
    skipped: dict[str, dict[str, int]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    tuning: dict[str, Any] = field(default_factory=dict)
    recipe: dict[str, Any] = field(default_factory=dict)
    heads: dict[str, Any] = field(default_factory=dict)
    times_back: int = 0
    stopped: str | None = None
    error: str | None = None
    pid: int = field(default_factory=os.getpid)
    host: str = field(default_factory=socket.gethostname)

    @classmethod
    def read(cls, folder: Path) -> Record | None:
        """Read the record of a run folder; None if it has none.

        Raises:
            ConfigError: the file cannot be read, or no run wrote it.
        """
        file = folder / FILE
        try:
            content = json.loads(file.read_bytes())
            if not isinstance(content, dict):
                raise ValueError(f"it holds {type(content).__name__}")
            known = {f.name for f in fields(cls)}
            record = cls(**{"pid": 0, "host": "", **{key: content[key] for key in content if key in known}})
            record.scores = [(int(iterations), float(score)) for iterations, score in record.scores]
            _check(record)
        except FileNotFoundError:
            return None
        # A file that no run wrote may be nested too deeply, have too large numbers or values of other types
        except (OSError, ValueError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
            problem = error.strerror if isinstance(error, OSError) else one_line(error)
            raise ConfigError(f"{file}: {problem}") from None
        return record

    @property
    def score(self) -> float | None:
        """The latest value of the metric that runs are compared by."""
        task, _, key = self.metric.partition("/")
        return self.metrics.get(task, {}).get(key)

    def write(self, folder: Path) -> None:
        """Write the record to a run folder."""
        with _WRITING, atomic_write(folder / FILE) as partial:
            partial.write_text(json.dumps(asdict(self), indent=2) + "\n")

    def try_write(self, folder: Path) -> None:
        """Write the record, or warn if that is impossible, as on a full disk."""
        try:
            self.write(folder)
        except OSError as error:
            logger.warning("%s cannot be written: %s", folder / FILE, one_line(error))

    def measure_memory(self) -> None:
        """Update the peak memory with that of this process so far."""
        self.peak_memory_bytes = max(self.peak_memory_bytes, peak_memory())

    def set_metrics(self, metrics: Mapping[str, Mapping[str, float | None]]) -> None:
        """Store the metrics of an evaluation, and its score; nan and inf, which JSON lacks, become None.

        Raises:
            ConfigError: the metric that runs are compared by is missing.
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
            available = ", ".join(f"{task}/{key}" for task, keys in self.metrics.items() for key in keys)
            raise ConfigError(f"train.metric={self.metric}: the evaluation gives {available or 'nothing'}")
        if self.score is not None:
            earlier = [score for score in self.scores if score[0] < self.iterations]
            self.scores = [*earlier, (self.iterations, self.score)]

    def note_best(self) -> bool:
        """Store the latest score as the best one if it is the highest so far; returns whether it is."""
        if self.score is None or (self.best_score is not None and self.score <= self.best_score):
            return False
        self.best_score, self.best_iterations = self.score, self.iterations
        return True

    def compare_by(self, metric: str) -> None:
        """Set the metric that runs are compared by; scores of another metric are dropped."""
        if metric != self.metric:
            self.metric, self.scores = metric, []
            self.best_score = self.best_iterations = None

    def continue_from(self, earlier: Record) -> None:
        """Copy progress and scores of the part of this run before a resume."""
        self.train_seconds, self.iterations = earlier.train_seconds, earlier.iterations
        self.times_back, self.tuning = earlier.times_back, earlier.tuning
        self.recipe, self.heads = self.recipe or earlier.recipe, earlier.heads
        self.peak_memory_bytes = earlier.peak_memory_bytes
        self.metrics, self.scores = earlier.metrics, earlier.scores
        self.best_score, self.best_iterations = earlier.best_score, earlier.best_iterations


def _check(record: Record) -> None:
    """Raise ValueError for JSON that no run wrote: another program's, or an edited file."""
    if record == Record(pid=0, host=""):
        raise ValueError("has no field of a run's record")
    for name, kind in get_type_hints(Record).items():
        if not fits(getattr(record, name), kind):
            expected = getattr(kind, "__name__", kind)
            raise ValueError(f"{name} is {getattr(record, name)!r:.60}, expected {expected}")
    if record.status not in ("running", "interrupted", "done", "failed"):
        raise ValueError(f"status is {record.status!r}, expected running, interrupted, done or failed")


@contextmanager
def recorded(record: Record, folder: Path) -> Iterator[None]:
    """Lock a run folder and keep its record up to date: running, then done, or failed with the reason.

    The record of a run that is killed stays ``running``, because the run can be resumed; ``is_held`` returns
    whether a process still trains it.

    Raises:
        ConfigError: another process trains in the folder.
    """
    with hold(folder):
        reset_peak_memory()
        record.write(folder)
        try:
            yield
        except BaseException as error:
            if isinstance(error, Interrupted):
                record.status = "interrupted"
            elif isinstance(error, Exception):
                record.status = "failed"
            record.error = error_reason(error)
            record.measure_memory()
            record.try_write(folder)
            raise
        record.status = "done"
        record.measure_memory()
        record.write(folder)


def record_failure(folder: Path, error: Exception) -> None:
    """Record why a run has failed, if the error is of another process than the one that records the run."""
    try:
        record = Record.read(folder)
    except ConfigError:
        return
    if record is None or record.status == "done" or is_held(folder):
        return
    record.status, record.error = "failed", error_reason(error)
    record.try_write(folder)


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Lock a run folder, so that no other process writes to it; this process may hold it already.

    Temporary files of processes that were killed there are deleted.

    Raises:
        ConfigError: another process trains in the folder.
    """
    folder = folder.resolve()
    if folder in _HELD:
        yield
        return
    with (folder / LOCK).open("w") as lock:
        if not try_lock(lock):
            time.sleep(0.3)  # is_held, in another process, locks the file for a moment
            if not try_lock(lock):
                raise ConfigError(f"{folder}: another process trains there")
        _HELD.add(folder)
        remove_leftovers(folder)
        try:
            yield
        finally:
            _HELD.remove(folder)


def is_held_by_another(folder: Path) -> bool:
    """Return whether another process than this one trains in a run folder at this moment."""
    return folder.resolve() not in _HELD and is_held(folder)


def is_held(folder: Path) -> bool:
    """Return whether a process trains in a run folder at this moment."""
    folder = folder.resolve()
    if folder in _HELD:
        return True  # opening and closing the file here would release the lock of this process
    try:
        with (folder / LOCK).open() as lock:
            return not try_lock(lock, exclusive=False)
    except FileNotFoundError:
        return False
