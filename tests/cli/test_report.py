"""``d2timm report``: the leaderboard of a sweep at a terminal, and the page of anything that has one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers import commands
from helpers.pages import put_choice, put_full
from helpers.run_folders import put

from d2timm.cli import main


def test_leaderboard_is_printed_and_written_without_torch(tmp_path: Path) -> None:
    put(tmp_path / "a", 5, command=["train", "x=1"])
    put(tmp_path / "b", status="failed", error="ValueError: no")
    done = commands.run("report", str(tmp_path), without=["torch", "timm", "detectron2", "hydra"])
    assert (done.returncode, done.stderr) == (0, "")
    assert "Best: a: bbox/AP 5.00." in done.stdout
    assert done.stdout.endswith("  train x=1\n")
    for name in ("leaderboard.md", "leaderboard.csv", "leaderboard.json", "pareto.png", "report.html"):
        assert (tmp_path / name).stat().st_size > 0


def test_json_is_the_file_that_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(tmp_path / "a", 5)
    assert main(["report", str(tmp_path), "--json"]) == 0
    out = capsys.readouterr().out
    assert out == (tmp_path / "leaderboard.json").read_text()
    assert json.loads(out)["best"]["name"] == "a"


def test_run_and_choice_receive_the_page_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put_full(tmp_path / "run", 5.0)
    put_choice(tmp_path / "choice")
    for name, text in (("run", "Best: run: bbox/AP 5.00."), ("choice", "model2 is best with 90 %.")):
        before = {path.name for path in (tmp_path / name).iterdir()}
        assert main(["report", str(tmp_path / name)]) == 0
        assert text in capsys.readouterr().out
        assert {path.name for path in (tmp_path / name).iterdir()} == before | {"report.html"}


@pytest.mark.parametrize("wrong", ["missing", "file", "empty"])
def test_wrong_folder_is_one_line_on_stderr(
    wrong: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    assert main(["report", str(tmp_path / wrong)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert line.startswith(f"error: {tmp_path / wrong} ")
    assert "the folder of a sweep" in line
    assert not list((tmp_path / "empty").iterdir())


def test_folder_that_cannot_be_written_is_an_error_after_the_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(tmp_path / "a", 5)
    (tmp_path / "leaderboard.md").mkdir()
    assert main(["report", str(tmp_path)]) == 2
    out, err = capsys.readouterr()
    assert "Best: a" in out
    (line,) = err.splitlines()
    assert line.startswith("error: ")
    assert str(tmp_path) in line
