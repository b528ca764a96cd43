"""Intervals and ties of a leaderboard come from the detections of its runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helpers.found import write_matches
from helpers.run_folders import put

from d2timm.evaluation import matches
from d2timm.report.certainty import with_intervals
from d2timm.report.columns import INTERVAL, make_columns
from d2timm.report.entries import Entry, make_entries, ranks
from d2timm.report.tables import summary
from d2timm.runs.status import read_runs

IMAGES = 80


def put_run(
    sweep: Path,
    name: str,
    share: float,
    seed: int = 0,
    shift: float = 0.0,
    first_image: int = 0,
    **fields: Any,
) -> float:
    """A run that finds this share of the objects, one in each image; returns its AP."""
    score = write_matches(sweep / name, share, seed, IMAGES, first_image)
    put(sweep / name, score + shift, **fields)
    return score


def entries_of(sweep: Path) -> list[Entry]:
    return with_intervals(make_entries(read_runs(sweep)), sweep)


def test_runs_whose_difference_may_be_chance_share_a_rank(tmp_path: Path) -> None:
    first = put_run(tmp_path, "a", 0.9)
    put_run(tmp_path, "b", 0.88, seed=1)
    last = put_run(tmp_path, "c", 0.3)
    entries = entries_of(tmp_path)
    assert [entry.name for entry in entries][2] == "c"
    assert ranks(entries) == [(1, True), (1, True), (3, False)]
    for entry, score in ((entries[-1], last), (next(e for e in entries if e.name == "a"), first)):
        assert entry.interval is not None
        low, high = entry.interval
        assert low < score < high
        assert high - low < 40
    assert "share a rank" in summary(entries)
    assert " to " in make_columns(entries)[INTERVAL][0]


def test_repeats_are_drawn_as_well(tmp_path: Path) -> None:
    for seed, share in enumerate((0.9, 0.3)):
        command = ["d2timm", "sweep", "neck=fpn", f"train.seed={seed}"]
        put_run(tmp_path, f"neck=fpn,train.seed={seed}", share, seed=seed, command=command)
    put_run(tmp_path, "other", 0.6)
    wide, narrow = sorted(entries_of(tmp_path), key=lambda entry: -len(entry.runs))
    assert wide.interval is not None
    assert narrow.interval is not None
    assert wide.interval[1] - wide.interval[0] > 1.5 * (narrow.interval[1] - narrow.interval[0])


def test_entries_without_matches_stay(tmp_path: Path) -> None:
    put_run(tmp_path, "a", 0.9)
    put(tmp_path / "b", 10.0)
    put(tmp_path / "c", None, status="failed", error="x")
    put_run(tmp_path, "d", 0.5, shift=3.0)  # its last evaluation is another one
    damaged = put(tmp_path / "e", 5.0) / "inference" / matches.file_name("bbox")
    damaged.parent.mkdir()
    damaged.write_bytes(b"PK")
    known = {entry.name: entry.interval is not None for entry in entries_of(tmp_path)}
    assert known == {"a": True, "b": False, "c": False, "d": False, "e": False}
    assert [rank for rank in ranks(entries_of(tmp_path)) if rank] == [(n, False) for n in (1, 2, 3, 4)]


def test_runs_of_other_images_do_not_tie(tmp_path: Path) -> None:
    put_run(tmp_path, "a", 0.9)
    put_run(tmp_path, "b", 0.88, seed=1, first_image=1000)
    entries = entries_of(tmp_path)
    assert all(entry.interval for entry in entries)
    assert ranks(entries) == [(1, False), (2, False)]


@pytest.mark.parametrize("number", [0, 1])
def test_few_runs(number: int, tmp_path: Path) -> None:
    for index in range(number):
        put_run(tmp_path, str(index), 0.5)
    put(tmp_path / "x", 1.0)
    assert len(entries_of(tmp_path)) == number + 1
