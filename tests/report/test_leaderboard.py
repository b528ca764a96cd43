"""The files that a sweep's folder holds after write_leaderboard."""

from __future__ import annotations

import json
from pathlib import Path

from helpers.run_folders import put

from d2timm.report import write_leaderboard

FILES = ("leaderboard.md", "leaderboard.csv", "leaderboard.json", "pareto.png", "report.html")


def test_same_folders_give_the_same_bytes(tmp_path: Path) -> None:
    for i in range(30):
        command = ["d2timm", "sweep", f"lr={i // 2}", f"train.seed={i % 2}"]
        costs = {"parameters": 10**6 + i, "images_per_second": 300.0 / (i + 1)}
        put(tmp_path / f"lr={i // 2},seed={i % 2}", 30 + i, command=command, **costs)
    write_leaderboard(tmp_path)
    first = {name: (tmp_path / name).read_bytes() for name in FILES}
    write_leaderboard(tmp_path)
    assert {name: (tmp_path / name).read_bytes() for name in FILES} == first


def test_sweep_without_a_score_has_no_plot(tmp_path: Path) -> None:
    put(tmp_path / "a", status="running")
    (tmp_path / "pareto.png").write_text("of an earlier sweep")
    write_leaderboard(tmp_path)
    text = (tmp_path / "leaderboard.md").read_text()
    assert "No run has a score yet." in text
    assert "pareto.png" not in text
    assert not (tmp_path / "pareto.png").exists()
    assert json.loads((tmp_path / "leaderboard.json").read_text())["best"] is None
