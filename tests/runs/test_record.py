"""result.json has the state of a run at any moment."""

from __future__ import annotations

import json
import math
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from d2timm import ConfigError
from d2timm.runs.record import Record, is_held, record_failure, recorded
from d2timm.utils.text import error_reason


def strict_json(folder: Path) -> dict[str, Any]:
    """result.json, parsed strictly: without NaN and Infinity."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return dict(json.loads((folder / "result.json").read_text(), parse_constant=refuse))


def test_run_is_running_until_it_is_done(tmp_path: Path) -> None:
    record = Record(model_name="resnet18", parameters=7, command=["python", "train.py"])
    with recorded(record, tmp_path):
        assert strict_json(tmp_path)["status"] == "running"
        record.iterations = 3
    result = strict_json(tmp_path)
    assert result.pop("peak_memory_bytes") > 1e6
    assert result == {
        "status": "done",
        "command": ["python", "train.py"],
        "model_name": "resnet18",
        "parameters": 7,
        "multiply_adds": 0,
        "labels": {},
        "iterations": 3,
        "max_iter": 0,
        "train_seconds": 0.0,
        "images_per_second": None,
        "metrics": {},
        "metric": "bbox/AP",
        "scores": [],
        "best_score": None,
        "best_iterations": None,
        "skipped": {},
        "notes": [],
        "tuning": {},
        "recipe": {},
        "heads": {},
        "times_back": 0,
        "stopped": None,
        "error": None,
        "pid": os.getpid(),
        "host": socket.gethostname(),
    }


def test_failure_of_another_process(tmp_path: Path) -> None:
    error = ConfigError("1.jpg is broken")
    record_failure(tmp_path, error)
    assert Record.read(tmp_path) is None
    Record().write(tmp_path)
    record_failure(tmp_path, error)
    record = Record.read(tmp_path)
    assert record is not None
    assert (record.status, record.error) == ("failed", "1.jpg is broken")
    for status, held in (("done", False), ("running", True)):
        Record(status=status).write(tmp_path)
        with holder(tmp_path) if held else nullcontext():
            record_failure(tmp_path, error)
        kept = Record.read(tmp_path)
        assert kept is not None
        assert (kept.status, kept.error) == (status, None), "of another run"


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (FloatingPointError("loss is nan\nmore"), "failed", "FloatingPointError: loss is nan"),
        (ConfigError("max_iter=0: at least 1"), "failed", "max_iter=0: at least 1"),
        (MemoryError(), "failed", "MemoryError"),
        (KeyboardInterrupt(), "running", "KeyboardInterrupt"),
        (SystemExit(143), "running", "SystemExit: 143"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_reason_of_an_early_end_is_recorded_in_one_line(
    tmp_path: Path, error: BaseException, status: str, reason: str
) -> None:
    """An interrupted run has not failed: it can be resumed."""
    with pytest.raises(type(error)), recorded(Record(iterations=2), tmp_path):
        raise error
    result = strict_json(tmp_path)
    assert (result["status"], result["error"], result["iterations"]) == (status, reason, 2)
    assert result["peak_memory_bytes"] > 1e6
    assert not is_held(tmp_path)


@pytest.mark.parametrize("error", [Exception(), Exception("\n\nlate"), Exception("  "), ConfigError("")])
def test_reason_is_one_line_for_any_message(error: Exception, tmp_path: Path) -> None:
    with pytest.raises(type(error)), recorded(Record(), tmp_path):
        raise error
    reason = strict_json(tmp_path)["error"]
    assert reason == reason.strip() == error_reason(error)
    assert "\n" not in reason


def test_numbers_that_json_lacks_become_null(tmp_path: Path) -> None:
    record = Record()
    record.set_metrics({"bbox": {"AP": 12.5, "APl": math.nan, "APs": math.inf, "AP50": None}})
    record.write(tmp_path)
    metrics = strict_json(tmp_path)["metrics"]
    assert metrics == {"bbox": {"AP": 12.5, "APl": None, "APs": None, "AP50": None}}


def test_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert Record.read(tmp_path) is None
    record = Record(
        model_name="vit", iterations=5, train_seconds=1.5, metrics={"bbox": {"AP": None}}, scores=[(5, 1.5)]
    )
    record.write(tmp_path)
    assert Record.read(tmp_path) == record


def test_keys_of_a_newer_version_are_ignored(tmp_path: Path) -> None:
    Record(model_name="vit", iterations=5).write(tmp_path)
    newer = {**strict_json(tmp_path), "watt_hours": 3.5, "parts": {"a": [1]}}
    (tmp_path / "result.json").write_text(json.dumps(newer))
    assert Record.read(tmp_path) == Record(model_name="vit", iterations=5)


def test_record_of_an_older_version_is_completed(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text('{"status": "done", "model_name": "vit"}')
    record = Record.read(tmp_path)
    assert record == Record(status="done", model_name="vit", pid=0, host="")


def test_peak_memory_never_decreases(tmp_path: Path) -> None:
    record = Record(peak_memory_bytes=2**60)  # of an earlier part of the run
    with recorded(record, tmp_path):
        record.measure_memory()
    assert strict_json(tmp_path)["peak_memory_bytes"] == 2**60


# Scores


def test_score_is_the_latest_value_of_the_metric() -> None:
    record = Record(metric="segm/AP50")
    assert record.score is None
    record.set_metrics({"bbox": {"AP50": 3.0}, "segm": {"AP": 1.0, "AP50": 2.0}})
    assert record.score == 2.0
    record.set_metrics({"segm": {"AP50": math.nan}})
    assert record.score is None


def test_scores_are_a_series_over_iterations() -> None:
    record = Record()
    for iterations, score in ((2, 10.0), (4, 20.0)):
        record.iterations = iterations
        record.set_metrics({"bbox": {"AP": score}})
    assert record.scores == [(2, 10.0), (4, 20.0)]
    record.set_metrics({"bbox": {"AP": 21.0}})
    assert record.scores == [(2, 10.0), (4, 21.0)], "evaluated again at the same iteration"
    record.iterations = 2
    record.set_metrics({"bbox": {"AP": 11.0}})
    assert record.scores == [(2, 11.0)], "the run continued from an earlier checkpoint"
    record.iterations = 6
    record.set_metrics({"bbox": {"AP": math.nan}})
    assert record.scores == [(2, 11.0)], "nan is not a score"


@pytest.mark.parametrize(
    ("metric", "metrics", "available"),
    [
        ("segm/AP", {"bbox": {"AP": 3.0, "AP50": 4.0}}, ["bbox/AP", "bbox/AP50"]),
        ("bbox/ap", {"bbox": {"AP": 3.0}, "segm": {"AP": 2.0}}, ["bbox/AP", "segm/AP"]),
        ("bbox", {"bbox": {"AP": 3.0}}, ["bbox/AP"]),
        ("bbox/AP", {}, ["nothing"]),
    ],
)
def test_missing_metric_is_an_error_that_lists_the_available_ones(
    metric: str, metrics: dict[str, dict[str, float | None]], available: list[str]
) -> None:
    record = Record(metric=metric)
    with pytest.raises(ConfigError) as error:
        record.set_metrics(metrics)
    assert str(error.value).startswith(f"train.metric={metric}: ")
    assert str(error.value).endswith(", ".join(available))
    assert record.metrics == metrics, "the measured values are kept"


def test_best_is_the_first_of_the_highest_scores() -> None:
    record, is_best = Record(), []
    for iterations, score in ((2, 10.0), (4, 8.0), (6, math.nan), (8, 12.0), (10, 12.0)):
        record.iterations = iterations
        record.set_metrics({"bbox": {"AP": score}})
        is_best.append(record.note_best())
    assert is_best == [True, False, False, True, False]
    assert (record.best_score, record.best_iterations) == (12.0, 8)


def test_resumed_run_keeps_the_best_score(tmp_path: Path) -> None:
    scores = [(2, 30.0), (4, 20.0)]
    Record(iterations=6, scores=scores, best_score=30.0, best_iterations=2).write(tmp_path)
    earlier, record = Record.read(tmp_path), Record()
    assert earlier is not None
    record.continue_from(earlier)
    assert (record.scores, record.best_score, record.best_iterations) == (scores, 30.0, 2)
    record.iterations = 6
    record.set_metrics({"bbox": {"AP": 25.0}})
    assert not record.note_best()


def test_scores_of_another_metric_are_dropped() -> None:
    record = Record(scores=[(2, 30.0)], best_score=30.0, best_iterations=2)
    record.compare_by("bbox/AP")
    assert (record.scores, record.best_score) == ([(2, 30.0)], 30.0)
    record.compare_by("segm/AP")
    assert (record.metric, record.scores, record.best_score) == ("segm/AP", [], None)
    assert record.best_iterations is None


def test_scores_are_read_as_pairs_of_numbers(tmp_path: Path) -> None:
    record = Record(scores=[(2, 10.0), (4, 20.5)])
    record.write(tmp_path)
    read = Record.read(tmp_path)
    assert read is not None
    assert read.scores == [(2, 10.0), (4, 20.5)]
    assert dict(read.scores)[4] == 20.5


# Locked folders

HOLD = """
import os, sys, time
from pathlib import Path
from d2timm.runs.record import Record, recorded
with recorded(Record(), Path(sys.argv[1])):
    {inside}
    print(os.getpid(), flush=True)
    sys.stdin.read()
"""


@contextmanager
def holder(folder: Path, inside: str = "pass") -> Iterator[subprocess.Popen[str]]:
    """Another process that trains in a folder until its stdin is closed."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD.format(inside=inside), str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline(), "it ended at once"
        yield process
    finally:
        process.kill()
        process.communicate()


def test_folder_is_held_while_this_process_trains_in_it(tmp_path: Path) -> None:
    assert not is_held(tmp_path)
    with recorded(Record(), tmp_path):
        for _ in range(3):
            assert is_held(tmp_path), "looking does not release the lock"
        link = tmp_path.with_name("link")
        link.symlink_to(tmp_path)
        assert is_held(link)
        assert not is_held(tmp_path / "other")
    assert not is_held(tmp_path)
    with recorded(Record(), tmp_path):
        assert is_held(tmp_path), "it can be locked again"


def test_looking_in_this_process_does_not_release_the_lock(tmp_path: Path) -> None:
    """A POSIX lock is released when the process closes any descriptor of the file."""
    look = (
        "import sys; from pathlib import Path; from d2timm.runs.record import is_held; "
        "print(is_held(Path(sys.argv[1])))"
    )
    with recorded(Record(), tmp_path):
        assert is_held(tmp_path)
        command = [sys.executable, "-c", look, str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout == "True\n"


def test_folder_of_another_process_is_refused(tmp_path: Path) -> None:
    with holder(tmp_path) as process:
        assert is_held(tmp_path)
        before = (tmp_path / "result.json").read_bytes()
        with pytest.raises(ConfigError) as refused, recorded(Record(), tmp_path):
            pytest.fail("two processes train in one folder")
        assert str(refused.value).startswith(f"{tmp_path}: ")
        assert (tmp_path / "result.json").read_bytes() == before
        assert process.poll() is None
        assert is_held(tmp_path), "the refusal does not release the lock"
        process.communicate("")
        assert process.returncode == 0
    assert not is_held(tmp_path)
    assert strict_json(tmp_path)["status"] == "done"


def test_folder_of_a_killed_process_is_free(tmp_path: Path) -> None:
    with holder(tmp_path) as process:
        assert strict_json(tmp_path)["pid"] == process.pid
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not is_held(tmp_path)
    assert strict_json(tmp_path)["status"] == "running", "the killed process could not update it"
    with recorded(Record(), tmp_path):
        assert is_held(tmp_path)


def test_surviving_child_process_does_not_hold_the_folder(tmp_path: Path) -> None:
    """Workers of a data loader may outlive a killed run."""
    fork = "os.fork() or (print(os.getpid(), flush=True), time.sleep(60), os._exit(0))"
    with holder(tmp_path, fork) as process:
        assert process.stdout is not None
        process.stdout.readline()
        pids = set(map(int, Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()))
        (child,) = pids
        try:
            assert is_held(tmp_path)
            process.send_signal(signal.SIGKILL)
            process.wait()
            os.kill(child, 0)  # it is alive
            assert not is_held(tmp_path)
        finally:
            os.kill(child, signal.SIGKILL)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_folder_can_be_read(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    with recorded(Record(), folder):
        pass
    for path in (folder / ".lock", folder):
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        assert not is_held(folder)
        assert Record.read(folder) is not None
    finally:
        folder.chmod(0o755)


def test_folder_without_a_run_is_not_held(tmp_path: Path) -> None:
    assert not is_held(tmp_path)
    assert not is_held(tmp_path / "gone")
    assert not list(tmp_path.iterdir())


def test_readers_do_not_prevent_a_run_from_starting(tmp_path: Path) -> None:
    look = (
        "import sys, time\nfrom pathlib import Path\nfrom d2timm.runs.record import is_held\n"
        "print('ready', flush=True)\n"
        "while True:\n    is_held(Path(sys.argv[1]))\n    time.sleep(0.01)"
    )
    with recorded(Record(), tmp_path):
        pass
    looker = subprocess.Popen([sys.executable, "-c", look, str(tmp_path)], stdout=subprocess.PIPE)
    try:
        assert looker.stdout is not None
        looker.stdout.readline()
        with recorded(Record(), tmp_path):
            assert is_held(tmp_path)
    finally:
        looker.kill()
        looker.communicate()


def test_records_written_by_two_threads_are_complete(tmp_path: Path) -> None:
    """The training thread, and the one that notices the end of the parent process."""
    records = [Record(model_name=name, error=name * 1000) for name in ("a", "b")]
    failures: list[BaseException] = []

    def write(record: Record) -> None:
        try:
            for _ in range(50):
                record.write(tmp_path)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(record,)) for record in records]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert Record.read(tmp_path) in records
