"""The entries of a leaderboard: runs grouped into repeats, ranked by score."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from ..runs.record import Record
from ..runs.status import STATUSES, Run

__all__ = ["Entry", "best", "make_entries", "metrics_compared", "ranks"]

DECIMALS = 2  # of a score in a table; scores that are equal when rounded share a rank
Metrics = dict[str, dict[str, float | None]]


@dataclass(frozen=True)
class Entry:
    """A row of the leaderboard: one run, or repeats of a run that differ only in their seed.

    For repeats, the numbers are means and the spreads sample standard deviations. Unknown numbers are None.

    Attributes:
        name: of the run, or what the names of its repeats have in common.
        runs: the repeats.
        interval: of 95 % of the score, by a bootstrap over images and repeats.
        tied: whether the difference to the first entry of its rank may be chance.
    """

    name: str
    runs: tuple[Run, ...]
    interval: tuple[float, float] | None = None
    tied: bool = False

    @property
    def first(self) -> Record:
        """The record of the first run, for everything that repeats have in common."""
        return self.runs[0].record

    @property
    def status(self) -> str:
        """The status of the run that is furthest from done."""
        return max((run.status for run in self.runs), key=STATUSES.index)

    @property
    def reason(self) -> str:
        """The distinct reasons of the runs' statuses."""
        return "; ".join(dict.fromkeys(run.reason for run in self.runs if run.reason))

    @property
    def metric(self) -> str:
        """The metric that the score is a value of, such as ``bbox/AP``."""
        return self.first.metric

    @property
    def score(self) -> float | None:
        """The value that entries are ranked by, in percent."""
        return _mean(run.record.score for run in self.runs)

    @property
    def spread(self) -> float | None:
        """Standard deviation of the score."""
        return _spread(run.record.score for run in self.runs)

    @property
    def metrics(self) -> Metrics:
        """Task -> metric -> mean over the runs, in percent."""
        return self._merged(_mean)

    @property
    def spreads(self) -> Metrics:
        """Task -> metric -> standard deviation over the runs."""
        return self._merged(_spread)

    def _merged(self, merge: Callable[[Iterable[float | None]], float | None]) -> Metrics:
        all_metrics = [run.record.metrics for run in self.runs]
        merged: Metrics = {}
        for task in dict.fromkeys(task for metrics in all_metrics for task in metrics):
            numbers = [metrics.get(task, {}) for metrics in all_metrics]
            keys = dict.fromkeys(key for number in numbers for key in number)
            merged[task] = {key: merge(number.get(key) for number in numbers) for key in keys}
        return merged

    @property
    def parameters(self) -> int | None:
        """Parameters of the detector."""
        return self.first.parameters or None

    @property
    def multiply_adds(self) -> int | None:
        """Multiply-adds of backbone and neck for one image."""
        return self.first.multiply_adds or None

    @property
    def train_seconds(self) -> float | None:
        """Seconds of training."""
        return _mean(run.record.train_seconds or None for run in self.runs)

    @property
    def images_per_second(self) -> float | None:
        """Speed of the detector in evaluation."""
        return _mean(run.record.images_per_second or None for run in self.runs)

    @property
    def latency_ms(self) -> float | None:
        """Milliseconds per image in evaluation."""
        return 1000 / self.images_per_second if self.images_per_second else None

    @property
    def peak_memory_bytes(self) -> int | None:
        """The highest peak of all runs."""
        return max(run.record.peak_memory_bytes for run in self.runs) or None

    @property
    def iterations(self) -> int:
        """Iterations trained, rounded."""
        return round(fmean(run.record.iterations for run in self.runs))


def make_entries(runs: Sequence[Run]) -> list[Entry]:
    """Group runs into entries, ordered by score (highest first), speed, size and name.

    Entries without a score come last, ordered by status.
    """
    groups: dict[Any, list[Run]] = {}
    for run in runs:
        groups.setdefault(_repeat_key(run), []).append(run)
    return sorted((Entry(_common_name(group), tuple(group)) for group in groups.values()), key=_order)


def ranks(entries: Sequence[Entry]) -> list[tuple[int, bool] | None]:
    """(rank, whether it is shared) of each entry of a sorted list; None for entries without a score."""
    rounded = [None if entry.score is None else round(entry.score, DECIMALS) for entry in entries]
    first: list[int] = []  # index of the first entry of the same rank
    for index, entry in enumerate(entries):
        same = index > 0 and (entry.tied or rounded[index] == rounded[first[-1]])
        first.append(first[-1] if same else index)
    return [
        None if score is None else (first[index] + 1, first.count(first[index]) > 1)
        for index, score in enumerate(rounded)
    ]


def best(entries: Sequence[Entry]) -> Entry | None:
    """The first entry that is done, or else the first with a score."""
    scored = [entry for entry in entries if entry.score is not None]
    return next((entry for entry in scored if entry.status == "done"), scored[0] if scored else None)


def metrics_compared(entries: Iterable[Entry]) -> list[str]:
    """The distinct metrics of the scores; more than one if the runs were scored differently."""
    return sorted({entry.metric for entry in entries if entry.score is not None})


def _repeat_key(run: Run) -> Any:
    """A key that a run shares with its repeats: runs of the same command up to the seed, and the same metric.

    Runs without a final score or without a recorded command have a key of their own.
    """
    record = run.record
    ended = run.status in ("done", "stopped", "paused")
    if not (ended and record.score is not None and record.command):
        return run.name
    command = tuple(word for word in record.command if not re.match(r"\+{0,2}train\.seed=", word))
    return command, record.metric


def _common_name(runs: Sequence[Run]) -> str:
    """The name of the first run, without the seed if there are several."""
    name = runs[0].name
    if len(runs) == 1:
        return name
    parts = [part for part in name.split(",") if not re.match(r"\+{0,2}(train\.)?seed=", part)]
    return ",".join(parts) or name


def _order(entry: Entry) -> Any:
    if entry.score is None:
        return True, STATUSES.index(entry.status), entry.name
    speed, size = entry.images_per_second or 0, entry.parameters or 0
    return False, -round(entry.score, DECIMALS), -speed, size, entry.name


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _spread(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return stdev(known) if len(known) > 1 else None
