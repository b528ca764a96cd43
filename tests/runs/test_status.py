"""The status of every run folder of a sweep, for any content."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers.run_folders import put

from d2timm.errors import ConfigError
from d2timm.runs import status as status_module
from d2timm.runs.record import Record, hold
from d2timm.runs.status import read_runs


@pytest.mark.parametrize(
    ("fields", "status", "reason"),
    [
        ({}, "done", ""),
        ({"max_iter": 0}, "done", ""),
        ({"iterations": 60, "stopped": "AP has not risen"}, "stopped", "AP has not risen"),
        ({"iterations": 60}, "paused", "60 of 100 iterations"),
        ({"status": "running", "iterations": 60}, "killed", "cut off at iteration 60 of 100"),
        (
            {"status": "running", "iterations": 60, "error": "killed by SIGKILL"},
            "killed",
            "cut off at iteration 60 of 100: killed by SIGKILL",
        ),
        ({"status": "failed", "error": "OSError: disk\nfull"}, "failed", "OSError: disk\\nfull"),
        ({"status": "failed"}, "failed", "no reason is recorded"),
    ],
)
def test_status_and_reason(tmp_path: Path, fields: dict[str, Any], status: str, reason: str) -> None:
    put(tmp_path / "job", **fields)
    (run,) = read_runs(tmp_path)
    assert (run.name, run.status, run.reason) == ("job", status, reason)
    assert run.record == Record.read(tmp_path / "job")


def test_run_is_running_while_its_folder_is_held(tmp_path: Path) -> None:
    folder = put(tmp_path / "job", status="running", iterations=60)
    with hold(folder):
        (run,) = read_runs(tmp_path)
        assert (run.status, run.reason) == ("running", "60 of 100 iterations")
    assert read_runs(tmp_path)[0].status == "killed"


def test_run_of_another_process_is_running_until_it_dies(tmp_path: Path) -> None:
    (tmp_path / "job").mkdir()
    code = (
        "import sys; from pathlib import Path; from d2timm.runs.record import Record, recorded\n"
        "with recorded(Record(max_iter=9), Path(sys.argv[1])): print('on', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "job")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"on\n"
        assert read_runs(tmp_path)[0].status == "running"
        process.kill()
    assert read_runs(tmp_path)[0].reason == "cut off at iteration 0 of 9"


def test_run_that_ends_while_it_is_read_is_not_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = put(tmp_path / "job", status="running")

    def end(folder: Path) -> bool:
        Record(status="done").write(folder)
        return False

    monkeypatch.setattr(status_module, "is_held", end)
    assert read_runs(tmp_path)[0].status == "done"
    assert folder.is_dir()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "Expecting value"),
        ('{"status": "done", ', "Expecting property name"),
        ("[]", "it holds list"),
        ("3", "it holds int"),
        ('{"accuracy": 0.5}', "no field of a run"),
        ('{"status": "ok"}', "status is 'ok', expected running, interrupted, done or failed"),
        ('{"status": "done", "metrics": [1, 2]}', "metrics is [1, 2], expected"),
        ('{"status": "done", "metrics": {"bbox": {"AP": NaN}}}', "metrics is"),
        ('{"status": "done", "iterations": "many"}', "iterations is 'many', expected int"),
        ('{"status": "done", "train_seconds": Infinity}', "train_seconds is inf, expected float"),
        ('{"status": "done", "scores": [1]}', "cannot unpack"),
        ('{"status": "done", "train_seconds": 1' + "0" * 400 + "}", "expected float"),
        ("[" * 100_000, "recursion"),
    ],
)
def test_foreign_or_truncated_record_is_unreadable(tmp_path: Path, text: str, reason: str) -> None:
    put(tmp_path / "good")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "result.json").write_text(text)
    bad, good = read_runs(tmp_path)
    assert (bad.status, good.status) == ("unreadable", "done")
    assert reason in bad.reason
    assert bad.reason.isprintable()


def test_file_that_cannot_be_read_is_unreadable(tmp_path: Path) -> None:
    (tmp_path / "bytes").mkdir()
    (tmp_path / "bytes" / "result.json").write_bytes(b"\xff\xfe")
    (tmp_path / "folder" / "result.json").mkdir(parents=True)
    runs = read_runs(tmp_path)
    assert [run.status for run in runs] == ["unreadable", "unreadable"]
    assert runs[1].reason == "result.json: Is a directory"


def test_record_of_an_older_version_is_read(tmp_path: Path) -> None:
    (tmp_path / "job").mkdir()
    (tmp_path / "job" / "result.json").write_text(json.dumps({"status": "done", "iterations": 3, "gone": 1}))
    assert read_runs(tmp_path)[0].status == "done"


def test_earlier_runs_hidden_folders_and_files_are_skipped(tmp_path: Path) -> None:
    for name in ("job", "job~1", "job~12", "alone~1", ".hidden", "lr=0", "lr=0.1"):
        put(tmp_path / name)
    put(tmp_path / "deep" / "er")
    (tmp_path / "leaderboard.md").write_text("")
    assert [run.name for run in read_runs(tmp_path)] == ["alone~1", "job", "lr=0", "lr=0.1"]


def test_names_are_one_printable_line(tmp_path: Path) -> None:
    put(tmp_path / "a\nb\x1b[31m é")
    os.makedirs(os.fsencode(tmp_path) + b"/\xff")
    Record(status="done").write(tmp_path / os.fsdecode(b"\xff"))
    assert [run.name for run in read_runs(tmp_path)] == ["a\\nb\\x1b[31m é", "\\udcff"]


def test_folder_without_runs_is_an_error_with_the_fix(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere does not exist; .*folder of a sweep"):
        read_runs(tmp_path / "nowhere")
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(ConfigError, match=r"file is a file; .*folder of a sweep"):
        read_runs(file)
    with pytest.raises(ConfigError, match=rf"{tmp_path} .*folder of a sweep"):
        read_runs(tmp_path)
    with pytest.raises(ConfigError, match=f"use {tmp_path}$"):
        read_runs(put(tmp_path / "job"))
