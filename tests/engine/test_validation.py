"""Evaluation: the metric that runs are compared by, ``--eval-only``, averaged weights."""

from __future__ import annotations

import shutil
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.run_folders import read_record

from d2timm import ConfigError
from d2timm.cli import main
from d2timm.config.build import build_model
from d2timm.engine.process import run
from d2timm.engine.validation import evaluate, metric_of
from d2timm.runs.record import Record

MASK = "mask_rcnn_timm.py"


def eval_only(config_file: str | Path, *overrides: str) -> None:
    """Run ``d2timm train --eval-only``."""
    assert main(["train", "--config-file", str(config_file), "--eval-only", *overrides]) == 0


# The metric that runs are compared by


@pytest.mark.parametrize(
    ("recipe", "overrides", "metric"),
    [
        (MASK, [], "bbox/AP"),
        (MASK, ["~data.tasks", "~train.metric"], "bbox/AP"),
        (MASK, ["data.tasks=[sem_seg]"], "sem_seg/mIoU"),
        (MASK, ["data.tasks=[sem_seg]", "train.metric=segm/AP"], "segm/AP"),
    ],
)
def test_metric_follows_from_the_tasks(
    recipe: str, overrides: list[str], metric: str, tiny: Callable[..., Any], tmp_path: Path
) -> None:
    """Configs of earlier versions have no tasks."""
    assert metric_of(tiny(recipe, tmp_path, *overrides)) == metric


def test_user_chooses_the_metric(tiny: Callable[..., Any], trained_masks: Namespace, tmp_path: Path) -> None:
    run(tiny(MASK, tmp_path / "run", "train.metric=segm/AP50"))
    result = read_record(tmp_path / "run")
    assert result.metric == "segm/AP50"
    assert result.score == result.metrics["segm"]["AP50"]
    assert [iterations for iterations, _ in result.scores] == [2, 4]
    assert result.scores[-1] == (4, result.score)
    assert result.metrics == read_record(trained_masks.folder).metrics


def test_missing_metric_fails_the_run(tiny: Callable[..., Any], tmp_path: Path) -> None:
    cfg = tiny(MASK, tmp_path, "train.metric=keypoints/AP", "data.settings.custom.max_iter=1")
    with pytest.raises(ConfigError, match=r"train\.metric=keypoints/AP: .*bbox/AP, "):
        run(cfg)
    result = read_record(tmp_path)
    assert result.status == "failed"
    assert set(result.metrics) == {"bbox", "segm"}, "the measured values are kept"


# Evaluation without training


def test_eval_only_gives_the_metrics_of_the_final_evaluation(
    trained: Namespace, tiny_overrides: Callable[..., list[str]], tmp_path: Path
) -> None:
    final = read_record(trained.folder)
    folder = tmp_path / "run"
    shutil.copytree(trained.folder, folder)
    (folder / "predictions.png").unlink()
    without_metrics = read_record(folder)
    without_metrics.metrics = {}
    without_metrics.write(folder)
    config = (folder / "config.yaml").read_bytes()
    eval_only(trained.recipe, *tiny_overrides(trained.recipe, folder))
    result = read_record(folder)
    assert result.metrics == final.metrics
    assert (result.status, result.iterations) == ("done", 4)
    assert (folder / "predictions.png").is_file()
    assert (folder / "config.yaml").read_bytes() == config


def test_eval_only_of_a_file(
    trained_masks: Namespace, tiny_overrides: Callable[..., list[str]], tmp_path: Path
) -> None:
    checkpoint = trained_masks.folder / "model_final.pth"
    eval_only(MASK, *tiny_overrides(MASK, tmp_path / "new", f"train.init_checkpoint={checkpoint}"))
    result = read_record(tmp_path / "new")
    assert result.metrics == read_record(trained_masks.folder).metrics
    assert result.status == "done"


@pytest.mark.parametrize("train", ["not set", "missing"])
def test_eval_only_needs_no_training_files(train: str, trained_masks: Namespace, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(trained_masks.folder, folder)
    path = "null" if train == "not set" else tmp_path / "missing"
    overrides = [f"train.output_dir={folder}", f"data.train_json={path}", f"data.train_images={path}"]
    eval_only(folder / "config.yaml", *overrides)
    assert read_record(folder).metrics == read_record(trained_masks.folder).metrics


def test_batches_of_images_of_one_size_change_no_metric(trained_masks: Namespace, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(trained_masks.folder, folder)
    eval_only(folder / "config.yaml", f"train.output_dir={folder}", "dataloader.test.batch_size=3")
    expected = read_record(trained_masks.folder).metrics
    for task, metrics in read_record(folder).metrics.items():
        assert metrics == pytest.approx(expected[task], abs=1e-3)


# Averaged weights


def test_evaluations_use_averaged_weights(averaged: Path, tiny: Callable[..., Any]) -> None:
    state = torch.load(averaged / "model_final.pth", weights_only=True)
    assert set(state) == {"model", "trainer", "ema", "iteration"}
    assert any(not torch.equal(state["model"][name], state["ema"][name]) for name in state["model"])
    scores = {}
    for key in ("model", "ema"):
        cfg = tiny(MASK, averaged.parent / key)
        model = build_model(cfg)
        model.load_state_dict(state[key])
        scores[key] = evaluate(cfg, model, Record())[0]["bbox"]
    result = read_record(averaged)
    finite = {key: value for key, value in result.metrics["bbox"].items() if value is not None}
    assert finite == {key: scores["ema"][key] for key in finite}
    assert finite != {key: scores["model"][key] for key in finite}
    best = torch.load(averaged / "model_best.pth", weights_only=True)
    assert set(best) == {"model", "ema", "iteration"}
    assert "averaged weights" in (averaged / "log.txt").read_text()


@pytest.mark.parametrize("enabled", [True, False])
def test_config_selects_the_evaluated_weights(enabled: bool, averaged: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(averaged, folder)
    eval_only(averaged / "config.yaml", f"train.output_dir={folder}", f"train.ema.enabled={enabled}")
    assert (read_record(folder).metrics == read_record(averaged).metrics) == enabled
    log = (folder / "log.txt").read_text()
    assert f"{'averaged' if enabled else 'trained'} weights of {folder}/model_final.pth" in log


def test_checkpoint_without_averaged_weights(
    trained_masks: Namespace, tiny: Callable[..., Any], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(trained_masks.folder, folder)
    cfg = tiny(MASK, folder, "train.ema.enabled=True", "data.settings.custom.max_iter=6")
    for how in ({"eval_only": True}, {"resume": True}):
        with pytest.raises(ConfigError, match=r"model_final\.pth .*'ema': use train\.ema\.enabled=False"):
            run(cfg, **how)
