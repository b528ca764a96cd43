"""The parts of a page, as data for its template."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .tables import Table

__all__ = ["Content", "Dropped", "Key", "StageRow", "duration"]


@dataclass(frozen=True)
class Key:
    """An item of a legend: a line that can be hidden."""

    label: str
    color: str
    dash: str


@dataclass(frozen=True)
class StageRow:
    """A stage of a choice with its share of the time, in percent."""

    name: str
    status: str
    planned: str
    seconds: str
    share: float
    notes: list[str]


@dataclass(frozen=True)
class Dropped:
    """Candidates that were given up after the same stage, each with the reason."""

    stage: str
    candidates: list[tuple[str, str]]


@dataclass
class Content:
    """What a page shows; what is empty has no place on it.

    Attributes:
        kind: ``sweep``, ``choice`` or ``run``.
        name: of the folder.
        sentence: the result in words.
        notes: what a reader needs in order to understand it.
        facts: label and value.
        commands: label and command line.
        leaderboard: the main table.
        metrics: all metrics of a single run.
        finals: the trainings of finalists.
        classes: AP of classes.
        stages: of a choice.
        dropped: by a choice.
        correlations: stage and rank correlation with later scores.
        figures: name -> plot.
        runs: the legend of the training curves.
        candidates: the legend of the rungs.
        images: validation images.
        configs: keys in which the configs differ.
    """

    kind: str
    name: str
    sentence: str
    notes: list[str] = field(default_factory=list)
    facts: list[tuple[str, str]] = field(default_factory=list)
    commands: list[tuple[str, str]] = field(default_factory=list)
    leaderboard: Table | None = None
    metrics: Table | None = None
    finals: Table | None = None
    classes: list[Table] = field(default_factory=list)
    stages: list[StageRow] = field(default_factory=list)
    dropped: list[Dropped] = field(default_factory=list)
    correlations: list[tuple[str, str]] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)
    runs: list[Key] = field(default_factory=list)
    candidates: list[Key] = field(default_factory=list)
    images: dict[str, Any] | None = None
    configs: dict[str, Any] | None = None


def duration(seconds: float) -> str:
    """A time as a reader would say it, such as ``45 s`` or ``1 h 5 min``."""
    if not 0 <= seconds < 1e9:
        return ""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    hours, rest = divmod(minutes, 60)
    return f"{hours} h {rest} min" if hours else f"{minutes} min"
