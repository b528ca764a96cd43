"""Runs -> entries of a leaderboard, the best first."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from ..runs.record import Record
from ..runs.status import STATUSES, Run

__all__ = ["Entry", "best", "leaderboard", "metrics_compared", "ranks"]

DECIMALS = 2  # of a score in a table; scores that are equal in it tie
Metrics = dict[str, dict[str, float | None]]


@dataclass(frozen=True)
class Entry:
    """A row of the leaderboard: a run, or repeats of it that differ in their seed only.

    Of repeats the numbers are means, with the sample standard deviation as spread. What is None was not told.
    """

    name: str
    runs: tuple[Run, ...]

    @property
    def first(self) -> Record:
        """The record that stands for what repeats share."""
        return self.runs[0].record

    @property
    def status(self) -> str:
        """Of the run that came least far."""
        return max((run.status for run in self.runs), key=STATUSES.index)

    @property
    def reason(self) -> str:
        """The reasons of all runs, each once."""
        return "; ".join(dict.fromkeys(run.reason for run in self.runs if run.reason))

    @property
    def metric(self) -> str:
        """The metric that is its score."""
        return self.first.metric

    @property
    def score(self) -> float | None:
        """What entries are ranked by."""
        return _mean(run.record.score for run in self.runs)

    @property
    def spread(self) -> float | None:
        """Standard deviation of the score."""
        return _spread(run.record.score for run in self.runs)

    @property
    def metrics(self) -> Metrics:
        """All metrics, as in a record."""
        return self._merged(_mean)

    @property
    def spreads(self) -> Metrics:
        """Their standard deviations."""
        return self._merged(_spread)

    def _merged(self, merge: Callable[[Iterable[float | None]], float | None]) -> Metrics:
        told = [run.record.metrics for run in self.runs]
        tasks = dict.fromkeys(task for metrics in told for task in metrics)
        keys = {
            task: dict.fromkeys(key for metrics in told for key in metrics.get(task, {})) for task in tasks
        }
        return {
            task: {key: merge(metrics.get(task, {}).get(key) for metrics in told) for key in keys[task]}
            for task in tasks
        }

    @property
    def parameters(self) -> int | None:
        """Of the whole detector."""
        return self.first.parameters or None

    @property
    def multiply_adds(self) -> int | None:
        """Of backbone and neck for an image."""
        return self.first.multiply_adds or None

    @property
    def train_seconds(self) -> float | None:
        """Spent training."""
        return _mean(run.record.train_seconds or None for run in self.runs)

    @property
    def images_per_second(self) -> float | None:
        """In evaluation."""
        return _mean(run.record.images_per_second or None for run in self.runs)

    @property
    def latency_ms(self) -> float | None:
        """Of an image in evaluation."""
        return 1000 / self.images_per_second if self.images_per_second else None

    @property
    def peak_memory_bytes(self) -> int | None:
        """The most of any run."""
        return max(run.record.peak_memory_bytes for run in self.runs) or None

    @property
    def iterations(self) -> int:
        """Trained, to the nearest whole number."""
        return round(fmean(run.record.iterations for run in self.runs))


def leaderboard(runs: Sequence[Run]) -> list[Entry]:
    """Entries by score, the highest first; ties by speed, then size; those without a score last."""
    groups: dict[Any, list[Run]] = {}
    for run in runs:
        groups.setdefault(_what_repeats_share(run), []).append(run)
    return sorted((Entry(_common_name(group), tuple(group)) for group in groups.values()), key=_order)


def ranks(entries: Sequence[Entry]) -> list[tuple[int, bool] | None]:
    """(rank, whether others share it) of each entry of a leaderboard; None without a score."""
    shown = [None if entry.score is None else round(entry.score, DECIMALS) for entry in entries]
    return [None if score is None else (shown.index(score) + 1, shown.count(score) > 1) for score in shown]


def best(entries: Sequence[Entry]) -> Entry | None:
    """The first that is done, else the first with a score."""
    scored = [entry for entry in entries if entry.score is not None]
    return next((entry for entry in scored if entry.status == "done"), scored[0] if scored else None)


def metrics_compared(entries: Iterable[Entry]) -> list[str]:
    """The metrics that scores are of: one, unless runs of different aims share a sweep."""
    return sorted({entry.metric for entry in entries if entry.score is not None})


def _what_repeats_share(run: Run) -> Any:
    record = run.record
    ended = run.status in ("done", "stopped", "paused")
    if not (ended and record.score is not None and record.command):
        return run.name
    # as the command line of either front-end gives it
    told = tuple(token for token in record.command if not re.match(r"\+{0,2}train\.seed=", token))
    return told, record.metric


def _common_name(runs: Sequence[Run]) -> str:
    name = runs[0].name
    if len(runs) == 1:
        return name
    kept = [part for part in name.split(",") if not re.match(r"\+{0,2}(train\.)?seed=", part)]
    return ",".join(kept) or name


def _order(entry: Entry) -> Any:
    if entry.score is None:
        return True, STATUSES.index(entry.status), entry.name
    speed, size = entry.images_per_second or 0, entry.parameters or 0
    return False, -round(entry.score, DECIMALS), -speed, size, entry.name


def _mean(values: Iterable[float | None]) -> float | None:
    told = [value for value in values if value is not None]
    return fmean(told) if told else None


def _spread(values: Iterable[float | None]) -> float | None:
    told = [value for value in values if value is not None]
    return stdev(told) if len(told) > 1 else None
