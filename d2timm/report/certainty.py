"""Intervals of the scores of a leaderboard, and ties, from the detections of the runs."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from .bootstrap import Matches, compare, draw_scores, interval
from .entries import Entry

__all__ = ["with_intervals"]

logger = logging.getLogger(__name__)

#: Percent by which the AP of matches may differ from the score of a run, if both are of the same evaluation
TOLERANCE = 0.01


def with_intervals(entries: Sequence[Entry], sweep: Path) -> list[Entry]:
    """Add intervals and ties to entries, where their runs have the matches of their last evaluation.

    An entry ties with the first one of its rank if the interval of their difference contains 0. Entries that
    were evaluated on other images never tie, because their scores cannot be compared.

    Args:
        entries: of a leaderboard, sorted.
        sweep: the folder that holds the run folders.
    """
    known = {index: runs for index, entry in enumerate(entries) if (runs := _read(entry, sweep))}
    groups: dict[bytes, list[int]] = {}
    for index, runs in known.items():
        groups.setdefault(runs[0].images.tobytes(), []).append(index)
    scores: dict[int, tuple[bytes, NDArray[np.float64]]] = {}
    for images, group in groups.items():
        drawn = draw_scores([known[index] for index in group])
        scores |= {index: (images, drawn[:, column]) for column, index in enumerate(group)}
    result, leader = [], 0
    for index, entry in enumerate(entries):
        tied = False
        if index > leader and {leader, index} <= scores.keys() and scores[leader][0] == scores[index][0]:
            difference = (entries[leader].score or 0) - (entry.score or 0)
            tied = compare(scores[leader][1], scores[index][1], difference).is_tie
        leader = leader if tied else index
        own = interval(scores[index][1]) if index in scores else None
        result.append(dataclasses.replace(entry, interval=own, tied=tied))
    return result


def _read(entry: Entry, sweep: Path) -> list[Matches]:
    """The matches of all runs of an entry; none if one of them lacks them."""
    task, _, key = entry.metric.partition("/")
    if entry.score is None or key != "AP":
        return []
    found = []
    for run in entry.runs:
        file = sweep / run.name / "inference" / f"matches-{task}.npz"
        if not file.is_file():
            return []
        try:
            matches = Matches.read(file)
        except ConfigError as error:
            logger.warning("%s; %s has no interval", error, entry.name)
            return []
        score = run.record.score
        if score is None or abs(matches.average_precision() - score) > TOLERANCE:
            return []  # of another evaluation
        found.append(matches)
    same = all(np.array_equal(matches.images, found[0].images) for matches in found)
    return found if same else []
