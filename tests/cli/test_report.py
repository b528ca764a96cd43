"""scripts/sweep_report.py: the answer of a sweep at a terminal."""

from __future__ import annotations

import functools
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
from helpers import commands
from helpers.run_folders import put

run = functools.partial(commands.run, "sweep_report")


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return commands.load("sweep_report")


def test_tells_and_writes(tmp_path: Path) -> None:
    put(tmp_path / "a", 5, command=["train", "x=1"])
    put(tmp_path / "b", status="failed", error="ValueError: no")
    done = run(str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "Best: a: bbox/AP 5.00." in done.stdout
    assert done.stdout.endswith("  train x=1\n")
    for name in ("leaderboard.md", "leaderboard.csv", "leaderboard.json", "pareto.png"):
        assert (tmp_path / name).stat().st_size > 0


def test_json(
    tmp_path: Path, script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    put(tmp_path / "a", 5)
    monkeypatch.setattr(sys, "argv", ["report", str(tmp_path), "--json"])
    assert script.main() == 0
    out = capsys.readouterr().out
    assert out == (tmp_path / "leaderboard.json").read_text()
    assert json.loads(out)["best"]["name"] == "a"


@pytest.mark.parametrize("wrong", ["missing", "file", "empty"])
def test_wrong_folder_is_one_line_on_stderr(
    tmp_path: Path,
    script: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    wrong: str,
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    monkeypatch.setattr(sys, "argv", ["report", str(tmp_path / wrong)])
    assert script.main() == 2
    told = capsys.readouterr()
    assert told.out == ""
    (line,) = told.err.splitlines()
    assert line.startswith(f"error: {tmp_path / wrong} ")
    assert "the folder of a sweep" in line
    assert not list((tmp_path / "empty").iterdir())


def test_folder_that_cannot_be_written_is_told_after_the_table(
    tmp_path: Path, script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    put(tmp_path / "a", 5)
    (tmp_path / "leaderboard.md").mkdir()
    monkeypatch.setattr(sys, "argv", ["report", str(tmp_path)])
    assert script.main() == 2
    told = capsys.readouterr()
    assert "Best: a" in told.out
    assert told.err.startswith(f"error: the report on {tmp_path} cannot be written: ")


def test_help_needs_no_torch(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setattr(sys, "argv", ["report", "--help"])
    with pytest.raises(SystemExit, match="0"):
        script.main()
