"""Entries of a leaderboard: repeats are merged, the best comes first, ties share a rank."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helpers.run_folders import put

from d2timm.report.entries import Entry, best, make_entries, metrics_compared, ranks
from d2timm.runs.status import read_runs


def entries_of(sweep: Path) -> list[Entry]:
    return make_entries(read_runs(sweep))


def put_repeat(sweep: Path, seed: int, score: float | None, **fields: Any) -> None:
    command = ["d2timm", "sweep", "neck=fpn", f"train.seed={seed}"]
    put(sweep / f"neck=fpn,train.seed={seed}", score, **{"command": command, **fields})


def test_repeats_that_differ_only_in_the_seed_are_one_entry(tmp_path: Path) -> None:
    for seed, score in enumerate((10.0, 12.0, 14.0)):
        put_repeat(
            tmp_path,
            seed,
            score,
            train_seconds=100.0 + seed,
            images_per_second=10.0 * (seed + 1),
            peak_memory_bytes=2**50 + seed,
        )
    (entry,) = entries_of(tmp_path)
    assert entry.name == "neck=fpn"
    assert len(entry.runs) == 3
    assert (entry.score, entry.spread) == (12.0, 2.0)
    assert entry.metrics == {"bbox": {"AP": 12.0, "AP50": 18.0, "APs": None}}
    assert entry.spreads == {"bbox": {"AP": 2.0, "AP50": 3.0, "APs": None}}
    assert (entry.train_seconds, entry.images_per_second, entry.latency_ms) == (101.0, 20.0, 50.0)
    assert entry.peak_memory_bytes == 2**50 + 2


def test_repeats_without_a_result_are_separate_entries(tmp_path: Path) -> None:
    put_repeat(tmp_path, 0, 10.0)
    put_repeat(tmp_path, 1, 20.0, status="failed", error="x")
    put_repeat(tmp_path, 2, None)
    put_repeat(tmp_path, 3, 30.0, status="running")
    put_repeat(tmp_path, 4, 20.0)
    entries = entries_of(tmp_path)
    assert [(entry.name, entry.score) for entry in entries] == [
        ("neck=fpn,train.seed=3", 30.0),
        ("neck=fpn,train.seed=1", 20.0),
        ("neck=fpn", 15.0),
        ("neck=fpn,train.seed=2", None),
    ]


def test_repeats_need_the_same_command_and_metric(tmp_path: Path) -> None:
    put(tmp_path / "a", 1, command=[])
    put(tmp_path / "b", 1, command=[])  # without a command, nothing shows that it is a repeat
    put(tmp_path / "c", 1, command=["t", "+train.seed=1", "x=1"])
    put(tmp_path / "d", 1, command=["t", "x=1", "++train.seed=2"])
    put(tmp_path / "e", 1, command=["t", "x=2", "train.seed=2"])
    put(tmp_path / "f", 1, command=["t", "x=1"], metric="bbox/AP50")
    assert [entry.name for entry in entries_of(tmp_path)] == ["f", "a", "b", "c", "e"]


def test_status_of_repeats_is_the_one_furthest_from_done(tmp_path: Path) -> None:
    put_repeat(tmp_path, 0, 10.0)
    put_repeat(tmp_path, 1, 20.0, iterations=50, stopped="AP has not risen")
    (entry,) = entries_of(tmp_path)
    assert (entry.status, entry.reason, entry.iterations) == ("stopped", "AP has not risen", 75)


@pytest.mark.parametrize(
    ("name", "common"),
    [
        ("seed={},lr=0.1", "lr=0.1"),
        ("lr=0.1,++train.seed={},x=[1,2]", "lr=0.1,x=[1,2]"),
        ("train.seed={}", "train.seed=0"),
        ("{}", "0"),
    ],
)
def test_name_of_repeats_leaves_out_the_seed(tmp_path: Path, name: str, common: str) -> None:
    for seed in range(2):
        put(tmp_path / name.format(seed), 1, command=["t", f"train.seed={seed}"])
    assert [entry.name for entry in entries_of(tmp_path)] == [common]


def test_order_and_ranks(tmp_path: Path) -> None:
    put(tmp_path / "slow", 20.001, images_per_second=5.0)
    put(tmp_path / "fast", 20.004, images_per_second=9.0, parameters=9)
    put(tmp_path / "fast and small", 19.996, images_per_second=9.0, parameters=7)
    put(tmp_path / "low", 10)
    put(tmp_path / "top", 30, iterations=50, stopped="early")
    put(tmp_path / "failed", status="failed")
    put(tmp_path / "killed", status="running")
    put(tmp_path / "none")
    entries = entries_of(tmp_path)
    assert [entry.name for entry in entries] == [
        *("top", "fast and small", "fast", "slow", "low"),
        *("none", "killed", "failed"),
    ]
    assert ranks(entries) == [(1, False), (2, True), (2, True), (2, True), (5, False), None, None, None]


def test_best_is_the_first_that_is_done(tmp_path: Path) -> None:
    put(tmp_path / "failed", status="failed")
    assert best(entries_of(tmp_path)) is None
    put(tmp_path / "stopped", 30, iterations=1, stopped="early")
    first = best(entries_of(tmp_path))
    assert first is not None
    assert first.name == "stopped"
    put(tmp_path / "done", 20)
    first = best(entries_of(tmp_path))
    assert first is not None
    assert first.name == "done"


def test_metrics_without_a_score_are_not_compared(tmp_path: Path) -> None:
    put(tmp_path / "a", 1)
    put(tmp_path / "b", 1, metric="bbox/AP50")
    put(tmp_path / "c", metric="segm/AP")
    assert metrics_compared(entries_of(tmp_path)) == ["bbox/AP", "bbox/AP50"]
