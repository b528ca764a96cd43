"""The answer of a sweep: an exit code, and how to go on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from d2timm.runs.record import Record, recorded
from d2timm.sweep.callback import Answer, answer

METRICS = {"metrics": {"bbox": {"AP": 12.0}}, "scores": [(4, 12.0)], "images_per_second": 9.0}
DONE = {"status": "done", "iterations": 4, "max_iter": 4, **METRICS}
STATES: dict[str, dict[str, Any]] = {
    "done": DONE,
    "stopped": {**DONE, "iterations": 2, "stopped": "stopped at iteration 2 of 4"},
    "paused": {**DONE, "iterations": 2},
    "killed": {"status": "running", "iterations": 2, "max_iter": 4, "error": "killed by SIGKILL"},
    "failed": {"status": "failed", "max_iter": 4, "error": "MemoryError"},
}
RESUME = "What was cut off goes on when the sweep is started again with hydra.sweep.dir="
REPEAT = "What has failed runs again with --repeat-failed hydra.sweep.dir="


def fill(sweep: Path, *states: str) -> None:
    """Run folders in these states."""
    for number, state in enumerate(states):
        folder = sweep / f"backbone=model{number}"
        folder.mkdir(parents=True)
        Record(model_name=f"model{number}", command=["python", str(number)], **STATES[state]).write(folder)


@pytest.mark.parametrize(
    ("states", "code", "resume", "repeat"),
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
def test_code_and_how_to_go_on(
    states: list[str],
    code: int,
    resume: bool,
    repeat: bool,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fill(tmp_path, *states)
    assert answer(tmp_path) == code
    told = capsys.readouterr().out
    assert (f"{RESUME}{tmp_path}\n" in told) == resume
    assert (f"{REPEAT}{tmp_path}\n" in told) == repeat
    for number in range(len(states)):
        assert f"model{number}" in told
    for state in states:
        assert f"{states.count(state)} {state}" in told
    names = {file.name for file in tmp_path.iterdir() if file.is_file()}
    assert {"leaderboard.csv", "leaderboard.json", "leaderboard.md"} <= names


def test_run_that_another_process_trains_is_not_the_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(tmp_path, "done")
    folder = tmp_path / "backbone=other"
    folder.mkdir()
    with recorded(Record(max_iter=4), folder):
        assert answer(tmp_path) == 1
    told = capsys.readouterr().out
    assert "1 done, 1 running" in told
    assert RESUME not in told
    assert REPEAT not in told


@pytest.mark.parametrize(
    "there", [[], [".submitit"], ["backbone=model0"]], ids=["nothing", "hidden", "empty"]
)
def test_sweep_that_has_not_come_as_far_as_a_run(
    there: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in there:
        (tmp_path / name).mkdir()
    assert answer(tmp_path) == 1
    assert capsys.readouterr().out == "", "the reason has been told"
    assert sorted(path.name for path in tmp_path.iterdir()) == there


def test_earlier_tries_do_not_count(tmp_path: Path) -> None:
    fill(tmp_path, "done")
    aside = tmp_path / "backbone=model0~1"
    aside.mkdir()
    Record(**STATES["failed"]).write(aside)
    assert answer(tmp_path) == 0


def test_folder_is_noted_when_the_sweep_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Answer, "folder", None)
    folder = tmp_path / "new" / "sweep"
    Answer().on_multirun_start(OmegaConf.create({"hydra": {"sweep": {"dir": str(folder)}}}), config_name="x")
    assert Answer.folder == folder
    assert folder.is_dir()
    assert capsys.readouterr().out == f"sweep folder: {folder}\n"
