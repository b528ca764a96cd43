"""Tables of a page."""

from __future__ import annotations

from pathlib import Path

from helpers.pages import CLASSES, EVIL, put_choice, put_full, put_sweep
from helpers.run_folders import put

from d2timm.report.page.source import open_source
from d2timm.report.page.tables import (
    Table,
    candidate_table,
    class_tables,
    final_table,
    leaderboard,
    metric_table,
)
from d2timm.runs.choice import Choice


def column(table: Table, header: str) -> list[str]:
    place = [column.header for column in table.columns].index(header)
    return [row.cells[place].text for row in table.rows]


def test_leaderboard(tmp_path: Path) -> None:
    put_sweep(tmp_path)
    table = leaderboard(open_source(tmp_path).entries)
    assert column(table, "rank") == ["1", "2", "3"]
    assert column(table, "name") == ["model2", "model1", "model0"]
    assert [row.is_best for row in table.rows] == [True, False, False]
    assert table.rows[0].cells[1].title == "backbone=model2"
    assert column(table, "ms/image") == ["120.0", "110.0", "100.0"]
    details = [column.header for column in table.columns if column.detail]
    assert "box AP50" in details
    assert "images/s" in details
    assert table.has_details
    assert all(len(row.cells) == len(table.columns) for row in table.rows)


def test_candidates(tmp_path: Path) -> None:
    choice = put_choice(tmp_path)
    put(tmp_path / "probes" / "model3", multiply_adds=2 * 10**9)
    table = candidate_table(open_source(tmp_path), choice)
    assert column(table, "backbone") == ["model2", "model1", "model0", "model3"]
    assert column(table, "result") == ["chosen", "tied", "dropped: rungs", "dropped: probe"]
    assert column(table, "score") == ["21.00", "20.50", "", ""]
    assert column(table, "sure (%)") == ["90", "10", "", ""]
    assert column(table, "last rung") == ["10.00", "9.00", "8.00", ""]
    assert column(table, "GFLOPs") == ["1.00", "1.00", "1.00", "2.00"], "of a run, or of its probe"
    assert column(table, "train (s)") == ["120", "90", "30", ""], "of all of its runs"
    assert column(table, "reason")[-1] == EVIL
    assert [row.is_best for row in table.rows] == [True, False, False, False]


def test_candidates_before_the_verdict(tmp_path: Path) -> None:
    choice = put_choice(tmp_path, verdict=None)
    table = candidate_table(open_source(tmp_path), choice)
    assert column(table, "result") == ["in the race", "in the race", "dropped: rungs", "dropped: probe"]
    assert sorted(column(table, "score")) == ["", "", "20.50", "20.50"], "means over the finals"


def test_finals(tmp_path: Path) -> None:
    choice = put_choice(tmp_path)
    choice.finals[0].score, choice.finals[0].failed = None, True
    choice.finals[1].score = None
    table = final_table(choice)
    assert table
    assert column(table, "score") == ["failed", "", "20.00", "21.00"], "the second one is still training"
    assert final_table(Choice()) is None


def test_classes(tmp_path: Path) -> None:
    put_sweep(tmp_path, 2)
    put(tmp_path / "without a score", status="failed")
    (table,) = class_tables(open_source(tmp_path).entries)
    assert column(table, "class") == [*CLASSES]
    assert column(table, "model1") == ["11.0", "11.0"]
    assert [cell.heat for cell in table.rows[0].cells] == [None, 1.0, 0.0]


def test_metrics_of_a_run(tmp_path: Path) -> None:
    put_full(tmp_path / "a", 10.0)
    (entry,) = open_source(tmp_path / "a").entries
    table = metric_table(entry)
    assert table
    assert column(table, "metric") == ["AP", "AP50"]
    assert column(table, "box (%)") == ["10.00", "15.00"]
    put(tmp_path / "b")
    (entry,) = open_source(tmp_path / "b").entries
    assert metric_table(entry) is None
