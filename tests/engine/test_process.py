"""One process of a run: its files, config, log, seed, and earlier runs in its folder."""

from __future__ import annotations

import io
import logging
import shutil
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.run_folders import read_record, series

from d2timm.config.lazy import load, to_plain
from d2timm.engine.process import run

MASK = "mask_rcnn_timm.py"


def test_run_writes_every_file(trained: Namespace) -> None:
    names = {path.name for path in trained.folder.iterdir()}
    events = {name for name in names if name.startswith("events.out.tfevents")}
    assert len(events) == 1
    assert names - events == {
        ".lock",
        "config.yaml",
        "result.json",
        "metrics.json",
        "log.txt",
        "inference",
        "last_checkpoint",
        "model_0000001.pth",
        "model_best.pth",
        "model_final.pth",
        "predictions.png",
    }
    assert "d2timm" in (trained.folder / "log.txt").read_text()


def test_saved_config_is_the_config_of_the_run(trained: Namespace) -> None:
    saved = load(trained.folder / "config.yaml")
    assert to_plain(saved) == to_plain(trained.cfg)
    assert saved.data.name == "custom", "auto is replaced by the dataset that it selected"


def test_same_seed_gives_the_same_losses(
    tiny: Callable[..., Any], trained_masks: Namespace, tmp_path: Path
) -> None:
    run(tiny(MASK, tmp_path / "again"))
    run(tiny(MASK, tmp_path / "other", "train.seed=1"))
    losses = series(trained_masks.folder, "total_loss")
    assert series(tmp_path / "again", "total_loss") == losses
    assert series(tmp_path / "other", "total_loss") != losses


def test_log_contains_one_run(tiny: Callable[..., Any], tmp_path: Path) -> None:
    for name in ("first", "second"):
        run(tiny(MASK, tmp_path / name, "data.settings.custom.max_iter=1"))
    for name, other in (("first", "second"), ("second", "first")):
        text = (tmp_path / name / "log.txt").read_text()
        assert str(tmp_path / name) in text
        assert str(tmp_path / other) not in text


def test_log_streams_of_other_code_stay_open(tiny: Callable[..., Any], tmp_path: Path) -> None:
    """A run closes only the streams that an earlier run opened."""
    stream, logger = io.StringIO(), logging.getLogger("d2timm")
    logger.addHandler(logging.StreamHandler(stream))
    once = ["data.settings.custom.max_iter=1", "train.eval_period=0"]
    run(tiny(MASK, tmp_path / "first", *once))
    (log,) = {
        handler.stream
        for handler in logger.handlers
        if isinstance(handler, logging.StreamHandler)
        and handler.stream.name == str(tmp_path / "first/log.txt")
    }
    run(tiny(MASK, tmp_path / "second", *once))
    assert not stream.closed
    assert log.closed


def test_earlier_runs_are_moved_aside(
    tiny: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    for iterations in (1, 2, 3):
        run(tiny(MASK, folder, f"data.settings.custom.max_iter={iterations}"))
    runs = {name: read_record(tmp_path / name).iterations for name in ("run~1", "run~2", "run")}
    assert runs == {"run~1": 1, "run~2": 2, "run": 3}
    for name, iterations in runs.items():
        assert set(series(tmp_path / name, "total_loss")) >= set(range(iterations))
        log = (tmp_path / name / "log.txt").read_text()
        assert f"iter: {iterations - 1} " in log
        assert f"iter: {iterations} " not in log
    assert f"{folder}~1" in capsys.readouterr().out


def test_new_run_ignores_the_record_of_an_earlier_one(
    tiny: Callable[..., Any], trained_masks: Namespace, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(trained_masks.folder, folder)
    run(tiny(MASK, folder, "data.settings.custom.max_iter=1", "train.eval_period=0"))
    assert [iterations for iterations, _ in read_record(folder).scores] == [1]
    assert read_record(tmp_path / "run~1") == read_record(trained_masks.folder)
