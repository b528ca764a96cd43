"""The end of a sweep: its leaderboard, the exit code, and how to continue it."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from d2timm.runs.record import Record, recorded
from d2timm.sweep.callback import SweepFolder, print_leaderboard

METRICS = {"metrics": {"bbox": {"AP": 12.0}}, "scores": [(4, 12.0)], "images_per_second": 9.0}
DONE = {"status": "done", "iterations": 4, "max_iter": 4, **METRICS}
STATES: dict[str, dict[str, Any]] = {
    "done": DONE,
    "stopped": {**DONE, "iterations": 2, "stopped": "stopped at iteration 2 of 4"},
    "paused": {**DONE, "iterations": 2},
    "killed": {"status": "running", "iterations": 2, "max_iter": 4, "error": "killed by SIGKILL"},
    "failed": {"status": "failed", "max_iter": 4, "error": "MemoryError"},
}
CONTINUE = "To continue interrupted runs"
REPEAT = "--repeat-failed hydra.sweep.dir="


def fill(sweep: Path, *states: str) -> None:
    """Write run folders in these states."""
    for number, state in enumerate(states):
        folder = sweep / f"backbone=model{number}"
        folder.mkdir(parents=True)
        Record(model_name=f"model{number}", command=["d2timm", str(number)], **STATES[state]).write(folder)


@pytest.mark.parametrize(
    ("states", "code", "interrupted", "failed"),
    [
        (["done"], 0, False, False),
        (["done", "stopped", "paused"], 0, False, False),
        (["stopped"], 0, False, False),
        (["paused"], 0, False, False),
        (["done", "failed"], 1, False, True),
        (["failed"], 1, False, True),
        (["done", "killed"], 1, True, False),
        (["killed"], 1, True, False),
        (["done", "killed", "failed", "stopped", "paused"], 1, True, True),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else "",
)
def test_exit_code_and_how_to_continue(
    states: list[str],
    code: int,
    interrupted: bool,
    failed: bool,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fill(tmp_path, *states)
    assert print_leaderboard(tmp_path) == code
    output = capsys.readouterr().out
    assert (CONTINUE in output) == interrupted
    assert (f"{REPEAT}{tmp_path}\n" in output) == failed
    assert (f"hydra.sweep.dir={tmp_path}\n" in output) == (interrupted or failed)
    for number in range(len(states)):
        assert f"model{number}" in output
    for state in states:
        assert f"{states.count(state)} {state}" in output
    names = {file.name for file in tmp_path.iterdir() if file.is_file()}
    assert {"leaderboard.csv", "leaderboard.json", "leaderboard.md", "report.html"} <= names


def test_command_that_continues_can_be_pasted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "it's (here)"
    fill(folder, "killed")
    assert print_leaderboard(folder) == 1
    line = next(line for line in capsys.readouterr().out.splitlines() if CONTINUE in line)
    assert shlex.split(line.partition("with ")[2])[-1] == f"hydra.sweep.dir={folder}"


def test_run_that_another_process_trains_is_no_failure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(tmp_path, "done")
    folder = tmp_path / "backbone=other"
    folder.mkdir()
    with recorded(Record(max_iter=4), folder):
        assert print_leaderboard(tmp_path) == 0
    output = capsys.readouterr().out
    assert "1 done, 1 running" in output
    assert CONTINUE not in output
    assert REPEAT not in output


@pytest.mark.parametrize(
    "folders", [[], [".submitit"], ["backbone=model0"]], ids=["nothing", "hidden", "empty"]
)
def test_sweep_without_a_run_has_no_leaderboard(
    folders: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in folders:
        (tmp_path / name).mkdir()
    assert print_leaderboard(tmp_path) == 1
    assert capsys.readouterr().out == "", "the error has been printed before"
    assert sorted(path.name for path in tmp_path.iterdir()) == folders


def test_runs_that_were_moved_aside_do_not_count(tmp_path: Path) -> None:
    fill(tmp_path, "done")
    aside = tmp_path / "backbone=model0~1"
    aside.mkdir()
    Record(**STATES["failed"]).write(aside)
    assert print_leaderboard(tmp_path) == 0


def test_folder_is_created_and_noted_when_the_sweep_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(SweepFolder, "path", None)
    folder = tmp_path / "new" / "sweep"
    config = OmegaConf.create({"hydra": {"sweep": {"dir": str(folder)}}})
    SweepFolder().on_multirun_start(config, config_name="x")
    assert SweepFolder.path == folder
    assert folder.is_dir()
    assert str(folder) in capsys.readouterr().out
