"""Curves of trainings, from files in any state."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from helpers.pages import put_metrics

from d2timm.report.page import curves
from d2timm.report.page.curves import Curve, read_curves
from d2timm.runs.record import Record


def test_loss_and_score_over_iterations_and_seconds(tmp_path: Path) -> None:
    put_metrics(tmp_path, iterations=31, pace=0.5)
    record = Record(iterations=31, train_seconds=31.0, scores=[(10, 4.0), (31, 8.0)])
    read = read_curves(tmp_path, record)
    assert read.loss.iterations == [*range(1, 32, 2)]
    assert read.loss.values[:2] == [5.0, pytest.approx(5 / 3, abs=1e-4)]
    assert read.loss.seconds == pytest.approx([*map(float, range(1, 32, 2))]), "those of the record"
    assert read.score == Curve([10, 31], [10.0, 31.0], [4.0, 8.0])


def test_pace_may_change(tmp_path: Path) -> None:
    lines = [
        {"iteration": 9, "total_loss": 1.0, "time": 1.0},
        {"iteration": 19, "total_loss": 1.0, "time": 3.0},
    ]
    (tmp_path / "metrics.json").write_text("\n".join(map(json.dumps, lines)))
    assert read_curves(tmp_path, Record()).loss.seconds == [10.0, 40.0]
    assert read_curves(tmp_path, Record(iterations=20, train_seconds=80.0)).loss.seconds == [20.0, 80.0]


def test_without_a_file_scores_are_spread_over_the_training(tmp_path: Path) -> None:
    record = Record(iterations=20, train_seconds=40.0, scores=[(10, 4.0), (20, 8.0)])
    read = read_curves(tmp_path, record)
    assert read.loss == Curve()
    assert read.score == Curve([10, 20], [20.0, 40.0], [4.0, 8.0])
    assert read_curves(tmp_path, Record()).score == Curve()


def test_broken_lines_are_skipped(tmp_path: Path) -> None:
    good = {"iteration": 3, "total_loss": 2.0, "time": 1.0}
    lines = [
        json.dumps(good),
        "{",
        "[]",
        "null",
        '{"iteration": "x", "total_loss": 1.0}',
        '{"iteration": -5, "total_loss": 1.0}',
        '{"iteration": 5, "total_loss": NaN}',
        '{"iteration": 7, "total_loss": 1.5, "bbox/APs": NaN}',
        '{"iteration": 9, "total_loss": Infinity, "time": -1}',
        '{"iteration": 11, "total_loss": ' + "9" * 5000 + "}",
        "[" * 5000,
        '{"iteration": 13, "total_loss": 1.0, "x": "' + "y" * 300_000 + '"}',
        "\0\ufffd",
        '{"iteration": 15, "total_lo',
    ]
    (tmp_path / "metrics.json").write_bytes("\n".join(lines).encode() + b"\xff\xfe")
    read = read_curves(tmp_path, Record())
    assert (read.loss.iterations, read.loss.values) == ([4, 8], [2.0, 1.5])


def test_later_line_of_an_iteration_counts(tmp_path: Path) -> None:
    lines = [{"iteration": i, "total_loss": loss} for i, loss in ((0, 5.0), (2, 4.0), (0, 3.0))]
    (tmp_path / "metrics.json").write_text("\n".join(map(json.dumps, lines)))
    assert read_curves(tmp_path, Record()).loss.values == [3.0, 4.0]


def test_long_curves_are_thinned(tmp_path: Path) -> None:
    put_metrics(tmp_path, iterations=5000)
    loss = read_curves(tmp_path, Record(), points=100).loss
    assert 50 <= len(loss.values) <= 101
    assert (loss.iterations[0], loss.iterations[-1]) == (1, 4999)


def test_huge_file_is_sampled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_metrics(tmp_path, iterations=20_000)
    monkeypatch.setattr(curves, "LARGEST", 1000)
    monkeypatch.setattr(curves, "SAMPLED", 200)
    start = time.perf_counter()
    loss = read_curves(tmp_path, Record()).loss
    assert time.perf_counter() - start < 5
    assert 150 <= len(loss.values) <= 201
    assert loss.iterations == sorted(loss.iterations)
    assert loss.values == pytest.approx([5 / i for i in loss.iterations], rel=1e-4)


def test_folder_in_place_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "metrics.json").mkdir()
    assert read_curves(tmp_path, Record()).loss == Curve()
