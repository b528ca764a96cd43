"""result.json tells the state of a run at any moment."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from d2timm.record import Record, RecordProgress, recorded


def strict_json(folder: Path) -> dict[str, Any]:
    """result.json, read as other languages do: without NaN and Infinity."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return dict(json.loads((folder / "result.json").read_text(), parse_constant=refuse))


def test_run_is_running_until_it_is_done(tmp_path: Path) -> None:
    record = Record(model_name="resnet18", parameters=7)
    with recorded(record, tmp_path):
        assert strict_json(tmp_path)["status"] == "running"
        record.iterations = 3
    told = strict_json(tmp_path)
    assert told.pop("peak_memory_bytes") > 1e6
    assert told == {
        "status": "done",
        "model_name": "resnet18",
        "parameters": 7,
        "iterations": 3,
        "train_seconds": 0.0,
        "metrics": {},
        "error": None,
    }


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (FloatingPointError("loss is nan\nmore"), "FloatingPointError: loss is nan"),
        (KeyboardInterrupt(), "KeyboardInterrupt: "),
    ],
)
def test_failed_run_tells_the_reason_in_a_line(tmp_path: Path, error: BaseException, reason: str) -> None:
    with pytest.raises(type(error)), recorded(Record(), tmp_path):
        raise error
    told = strict_json(tmp_path)
    assert told["status"] == "failed"
    assert told["error"] == reason


def test_numbers_that_json_does_not_have_become_null(tmp_path: Path) -> None:
    record = Record()
    record.set_metrics({"bbox": {"AP": 12.5, "APl": math.nan, "APs": math.inf, "AP50": None}})
    record.write(tmp_path)
    metrics = strict_json(tmp_path)["metrics"]
    assert metrics == {"bbox": {"AP": 12.5, "APl": None, "APs": None, "AP50": None}}


def test_read_gives_what_was_written(tmp_path: Path) -> None:
    assert Record.read(tmp_path) is None
    record = Record(model_name="vit", iterations=5, train_seconds=1.5, metrics={"bbox": {"AP": None}})
    record.write(tmp_path)
    assert Record.read(tmp_path) == record


def test_peak_memory_never_falls(tmp_path: Path) -> None:
    record = Record(peak_memory_bytes=2**60)  # of an earlier part of the run
    record.write(tmp_path)
    assert strict_json(tmp_path)["peak_memory_bytes"] == 2**60


def test_seconds_of_training_add_up_over_resumed_parts_and_are_written_every_period(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(time, "monotonic", lambda: clock.now)
    progress = RecordProgress(Record(train_seconds=60.0), tmp_path, period=2)
    progress.before_train()
    written = []
    for iteration in (3, 4, 5):
        progress.trainer = SimpleNamespace(iter=iteration)
        progress.before_step()
        clock.now += 1.5
        progress.after_step()
        clock.now += 50  # an evaluation
        state = Record.read(tmp_path)
        written.append(state and (state.iterations, state.train_seconds))
    assert written == [(4, 61.5), (4, 61.5), (6, 64.5)]
