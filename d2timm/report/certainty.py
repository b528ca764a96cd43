"""Intervals of the scores of a leaderboard, and ties, from the detections of the runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from ..errors import ConfigError
from .bootstrap import Matches, compare, draw_scores, interval
from .entries import Entry

__all__ = ["with_intervals"]

#: Percent by which the AP of matches may differ from the score of a run, if both are of the same evaluation
TOLERANCE = 0.01


def with_intervals(entries: Sequence[Entry], sweep: Path) -> list[Entry]:
    """Add intervals and ties to entries, where their runs have the matches of their last evaluation.

    An entry ties with the first one of its rank if the interval of their difference contains 0.

    Args:
        entries: of a leaderboard, sorted.
        sweep: the folder that holds the run folders.
    """
    known = {index: runs for index, entry in enumerate(entries) if (runs := _read(entry, sweep))}
    if not known:
        return list(entries)
    try:
        scores = draw_scores([*known.values()])
    except ConfigError:
        return list(entries)  # evaluated on different images, as a note says
    column = {index: number for number, index in enumerate(known)}
    result, leader = [], 0
    for index, entry in enumerate(entries):
        if index not in known:
            result.append(entry)
            leader = index + 1
            continue
        own = scores[:, column[index]]
        tied = False
        if index > leader:
            difference = (entries[leader].score or 0) - (entry.score or 0)
            tied = compare(scores[:, column[leader]], own, difference).is_tie
        leader = leader if tied else index
        result.append(dataclasses.replace(entry, interval=interval(own), tied=tied))
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
        except ConfigError:
            return []
        score = run.record.score
        if score is None or abs(matches.average_precision() - score) > TOLERANCE:
            return []  # of another evaluation
        found.append(matches)
    return found
