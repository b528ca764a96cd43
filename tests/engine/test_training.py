"""Training: the record, metrics and checkpoints of runs that finish, are killed, resumed or fail."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.run_folders import metrics_lines, optimizer_steps, read_record, series

from d2timm import ConfigError
from d2timm.cli import main
from d2timm.config.build import build_on_meta
from d2timm.config.lazy import load, to_plain
from d2timm.engine.launch import launch
from d2timm.engine.process import run
from d2timm.runs.record import Record, is_held

MASK = "mask_rcnn_timm.py"
TWELVE = {"AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"}


# The run folder


def test_record_describes_the_run(trained: Namespace) -> None:
    result = read_record(trained.folder)
    assert (result.status, result.error) == ("done", None)
    assert result.model_name == "test_efficientnet"
    assert result.parameters == sum(p.numel() for p in build_on_meta(trained.cfg).parameters())
    assert (result.iterations, result.max_iter) == (4, 4)
    assert 0 < result.train_seconds < 300
    assert result.images_per_second is not None
    assert result.images_per_second > 0
    assert result.stopped is None
    assert (result.pid, result.host) == (os.getpid(), socket.gethostname())
    assert result.peak_memory_bytes > 1e6
    assert set(result.metrics) == ({"bbox", "segm"} if trained.recipe == MASK else {"bbox"})
    for numbers in result.metrics.values():
        assert set(numbers) == TWELVE | {f"AP-{name}" for name in ("circle", "triangle", "square", "star")}
    assert result.metric == "bbox/AP"
    assert result.score == result.metrics["bbox"]["AP"]
    evaluated = series(trained.folder, "bbox/AP")
    assert [iterations for iterations, _ in result.scores] == [2, 4]
    assert [score for _, score in result.scores] == pytest.approx(list(evaluated.values()))


def test_metrics_json_has_every_iteration_and_evaluation(trained: Namespace) -> None:
    losses = series(trained.folder, "total_loss")
    assert {0, 1, 2, 3} <= set(losses)
    assert all(math.isfinite(loss) for loss in losses.values())
    result = read_record(trained.folder)
    for task, numbers in result.metrics.items():
        evaluated = series(trained.folder, f"{task}/AP")
        assert len(evaluated) == 2, "one in the middle, one at the end"
        assert max(evaluated) >= 3
        assert evaluated[max(evaluated)] == pytest.approx(numbers["AP"])


def test_last_checkpoint_has_all_that_resuming_needs(trained: Namespace) -> None:
    name = (trained.folder / "last_checkpoint").read_text()
    assert name == "model_final.pth"
    assert torch.load(trained.folder / name, weights_only=True)["iteration"] == 3
    assert optimizer_steps(trained.folder / name) == {4}


def test_evaluation_at_the_end_only(tiny: Callable[..., Any], tmp_path: Path) -> None:
    run(tiny(MASK, tmp_path, "train.eval_period=0", "data.settings.custom.max_iter=3"))
    assert len(series(tmp_path, "bbox/AP")) == 1
    assert read_record(tmp_path).metrics


def test_initial_checkpoint_sets_the_weights(
    tiny: Callable[..., Any], trained_masks: Namespace, tmp_path: Path
) -> None:
    file = trained_masks.folder / "model_final.pth"
    still = ("optimizer.lr=0", "data.settings.custom.max_iter=1")
    cfg = tiny(MASK, tmp_path, f"train.init_checkpoint={file}", *still)
    run(cfg)
    before, after = (torch.load(f, weights_only=True) for f in (file, tmp_path / "model_final.pth"))
    assert after["iteration"] == 0, "the schedule starts at the beginning"
    names = [name for name, _ in build_on_meta(cfg).named_parameters()]
    assert all(torch.equal(before["model"][name], after["model"][name]) for name in names)


def test_boxes_suffice_for_faster_rcnn(tiny: Callable[..., Any], small_coco: Any, tmp_path: Path) -> None:
    overrides = ["data.settings.custom.max_iter=1"]
    for split in ("train", "val"):
        coco = json.loads(getattr(small_coco, f"{split}_json").read_text())
        for annotation in coco["annotations"]:
            del annotation["segmentation"], annotation["area"]
        (tmp_path / f"{split}.json").write_text(json.dumps(coco))
        overrides.append(f"data.{split}_json={tmp_path / split}.json")
    run(tiny("faster_rcnn_timm.py", tmp_path / "run", *overrides))
    assert read_record(tmp_path / "run").status == "done"


# Resuming


def wait_for(file: Path, process: subprocess.Popen[bytes], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not file.is_file():
        assert process.poll() is None, f"ended with {process.returncode} before {file.name}"
        assert time.monotonic() < end
        time.sleep(0.005)


@pytest.mark.slow
def test_killed_run_continues_from_its_checkpoint(
    tiny_overrides: Callable[..., list[str]], tmp_path: Path
) -> None:
    """After kill -9 and a resume, schedule, optimizer and length are those of an uninterrupted run."""
    iterations, period = 40, 5
    more = [
        f"data.settings.custom.max_iter={iterations}",
        f"train.checkpointer.period={period}",
        "train.eval_period=0",
    ]
    folder, uninterrupted = tmp_path / "killed", tmp_path / "uninterrupted"
    command = ["train", "--config-file", MASK]
    overrides = tiny_overrides(MASK, folder, *more)
    with (tmp_path / "output").open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "d2timm", *command, *overrides], stdout=output, stderr=output
        )
        try:
            wait_for(folder / "last_checkpoint", process)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
    assert process.returncode == -signal.SIGKILL
    assert (read_record(folder).status, read_record(folder).pid) == ("running", process.pid)
    assert not is_held(folder)
    checkpoint = (folder / "last_checkpoint").read_text()
    saved = int(checkpoint.removeprefix("model_").removesuffix(".pth"))
    assert period - 1 <= saved < iterations - 1
    seconds = read_record(folder).train_seconds

    assert main([*command, "--resume", *overrides]) == 0
    assert main([*command, *tiny_overrides(MASK, uninterrupted, *more)]) == 0

    result = read_record(folder)
    assert (result.status, result.iterations) == ("done", iterations)
    assert result.pid == os.getpid()
    assert result.train_seconds > seconds
    lines = [[line["iteration"] for line in metrics_lines(each)] for each in (folder, uninterrupted)]
    assert lines[0] == lines[1]
    rates, expected = series(folder, "lr"), series(uninterrupted, "lr")
    assert rates == expected
    assert len(set(expected.values())) > iterations // 2, "the rate changes"
    states = [torch.load(f / "model_final.pth", weights_only=True) for f in (folder, uninterrupted)]
    assert [state["iteration"] for state in states] == [iterations - 1, iterations - 1]
    for run_folder in (folder, uninterrupted):
        assert optimizer_steps(run_folder / "model_final.pth") == {iterations}
    assert states[0]["model"].keys() == states[1]["model"].keys()
    assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == [".lock"]


def test_resuming_a_finished_run_only_evaluates(
    tiny: Callable[..., Any], trained_masks: Namespace, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(trained_masks.folder, folder)
    (folder / "predictions.png").unlink()
    before = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.pth")}
    run(tiny(MASK, folder), resume=True)
    assert {path.name: path.stat().st_mtime_ns for path in folder.glob("*.pth")} == before
    old, new = read_record(trained_masks.folder), read_record(folder)
    assert (new.status, new.iterations, new.metrics) == ("done", 4, old.metrics)
    assert new.train_seconds == old.train_seconds
    assert (folder / "predictions.png").is_file()


def test_finished_run_can_be_trained_for_longer(
    tiny: Callable[..., Any], trained_masks: Namespace, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(trained_masks.folder, folder)
    run(tiny(MASK, folder, "data.settings.custom.max_iter=6"), resume=True)
    assert read_record(folder).iterations == 6
    assert read_record(folder).status == "done"
    assert torch.load(folder / "model_final.pth", weights_only=True)["iteration"] == 5


def test_resuming_without_a_checkpoint_starts_a_run(
    tiny: Callable[..., Any], trained_masks: Namespace, tmp_path: Path
) -> None:
    run(tiny(MASK, tmp_path / "run"), resume=True)
    assert read_record(tmp_path / "run").status == "done"
    losses = series(trained_masks.folder, "total_loss")
    assert series(tmp_path / "run", "total_loss") == losses


def test_resumed_run_keeps_its_record(
    tiny: Callable[..., Any], trained_masks: Namespace, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(trained_masks.folder, folder)
    earlier = read_record(folder)
    earlier.status, earlier.pid, earlier.host = "running", 1, "elsewhere"
    earlier.error, earlier.peak_memory_bytes = "killed by SIGKILL", 2**60
    earlier.write(folder)
    initial = Record(command=["d2timm", "again"], multiply_adds=7)
    run(tiny(MASK, folder, "data.settings.custom.max_iter=6"), resume=True, record=initial)
    result = read_record(folder)
    assert (result.status, result.error, result.max_iter) == ("done", None, 6)
    assert result.scores[:2] == read_record(trained_masks.folder).scores
    assert [iterations for iterations, _ in result.scores] == [2, 4, 6]
    assert result.peak_memory_bytes == 2**60
    assert result.train_seconds > earlier.train_seconds
    assert (result.command, result.multiply_adds) == (["d2timm", "again"], 7)
    assert (result.pid, result.host) == (os.getpid(), socket.gethostname())


# The best and the averaged weights


def equal(a: dict[str, Any], b: dict[str, Any]) -> bool:
    assert a.keys() == b.keys()
    return all(torch.equal(a[name], b[name]) for name in a)


def test_best_weights_are_saved_but_not_resumed_from(
    tiny: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over both parts of a run, whose best evaluation is the second of four."""
    scores = iter([10.0, 40.0, 30.0, 20.0])
    monkeypatch.setattr(
        "d2timm.engine.validation.evaluate", lambda cfg, model, record: ({"bbox": {"AP": next(scores)}}, None)
    )
    often = ["train.eval_period=1", "train.checkpointer.period=1", "train.checkpointer.max_to_keep=9"]
    run(tiny(MASK, tmp_path / "run", *often, "train.pause_at=2"))
    run(tiny(MASK, tmp_path / "run", *often), resume=True)
    result = read_record(tmp_path / "run")
    assert (result.best_score, result.best_iterations) == (40.0, 2)
    best = torch.load(tmp_path / "run/model_best.pth", weights_only=True)
    assert set(best) == {"model", "iteration"}
    assert best["iteration"] == 1
    files = ["model_0000000", "model_0000002", "model_final"]  # the second was overwritten after the pause
    states = [torch.load(tmp_path / f"run/{name}.pth", weights_only=True)["model"] for name in files]
    assert not any(equal(best["model"], state) for state in states)
    assert (tmp_path / "run/last_checkpoint").read_text() == "model_final.pth"
    log = (tmp_path / "run/log.txt").read_text()
    assert "bbox/AP: 40.00 after 2 iterations" in log


def test_resumed_run_continues_its_average(
    averaged: Path, averaged_overrides: list[str], tiny: Callable[..., Any], tmp_path: Path
) -> None:
    """With constant weights, the average approaches them by its decay."""
    folder = tmp_path / "run"
    shutil.copytree(averaged, folder)
    name = "roi_heads.box_predictor.cls_score.weight"
    before = torch.load(folder / "model_final.pth", weights_only=True)
    for group in before["trainer"]["optimizer"]["param_groups"]:
        group.update(lr=0.0, initial_lr=0.0)
    torch.save(before, folder / "model_final.pth")
    run(tiny(MASK, folder, *averaged_overrides, "data.settings.custom.max_iter=6"), resume=True)
    after = torch.load(folder / "model_final.pth", weights_only=True)
    assert torch.equal(after["model"][name], before["model"][name])
    expected = 0.9**2 * before["ema"][name] + (1 - 0.9**2) * before["model"][name]
    torch.testing.assert_close(after["ema"][name], expected)


def test_all_options_together(tiny: Callable[..., Any], tmp_path: Path) -> None:
    """Accumulation, bf16 on the CPU, averaged weights, and epochs of six images with four per step."""
    mixed = ["train.amp.enabled=True", "train.amp.precision=bf16", "train.ema.enabled=True"]
    cfg = tiny(MASK, tmp_path, *mixed, "train.accumulate=2", "train.epochs=2", "train.eval_epochs=1")
    run(cfg)
    saved = load(tmp_path / "config.yaml")
    assert to_plain(saved) == to_plain(cfg), "the saved config keeps its epochs"
    run(saved, resume=True)  # so the length is the same again
    result = read_record(tmp_path)
    assert (result.status, result.iterations, result.max_iter) == ("done", 3, 3)
    assert [iterations for iterations, _ in result.scores] == [2, 3]
    assert len(series(tmp_path, "total_loss")) == 3
    assert all(math.isfinite(loss) for loss in series(tmp_path, "total_loss").values())
    state = torch.load(tmp_path / "model_final.pth", weights_only=True)
    assert {value.dtype for value in state["model"].values()} <= {torch.float32, torch.int64}


@pytest.mark.slow
def test_processes_average_accumulate_and_stop_together(
    averaged_overrides: list[str], tiny: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    folder = tmp_path / "run"
    cfg = tiny(MASK, folder, *averaged_overrides, "train.accumulate=2", "train.early_stop=1")
    two = Namespace(num_gpus=2, num_machines=1, machine_rank=0, dist_url="auto")
    launch(run, two, cfg)
    result = read_record(folder)
    assert (result.status, result.error) == ("done", None)
    assert result.iterations in (2, 4), "all processes stop together, or continue together"
    saved = torch.load(folder / "model_best.pth", weights_only=True)
    assert not any(name.startswith("module.") for name in (*saved["model"], *saved["ema"]))
    assert saved["model"].keys() == saved["ema"].keys()


# Failures


def test_diverging_run_is_recorded_as_failed(tiny: Callable[..., Any], tmp_path: Path) -> None:
    cfg = tiny(MASK, tmp_path, "optimizer.lr=1e30", "data.settings.custom.max_iter=20", "train.eval_period=0")
    with pytest.raises(ConfigError, match=r"optimizer\.lr"):
        run(cfg)
    result = read_record(tmp_path)
    assert result.status == "failed"
    assert "Inf/NaN" in str(result.error)
    assert result.iterations < 20


def test_interrupted_run_has_not_failed_and_can_be_resumed(
    tiny: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*arguments: Any) -> None:
        raise KeyboardInterrupt

    cfg = tiny(MASK, tmp_path, "data.settings.custom.max_iter=2")
    with monkeypatch.context() as patch:
        patch.setattr("d2timm.engine.validation.evaluate", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run(cfg)
    result = read_record(tmp_path)
    assert (result.status, result.error, result.iterations) == ("running", "KeyboardInterrupt", 2)
    assert not is_held(tmp_path)
    run(cfg, resume=True)
    result = read_record(tmp_path)
    assert (result.status, result.error, result.iterations) == ("done", None, 2)


def test_failure_after_training_is_recorded_until_the_run_is_resumed(
    tiny: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any, **options: Any) -> None:
        raise OSError("disk full")

    cfg = tiny(MASK, tmp_path, "data.settings.custom.max_iter=1")
    with monkeypatch.context() as patch:
        patch.setattr("d2timm.engine.validation.draw_predictions", fail)
        with pytest.raises(OSError, match="disk full"):
            run(cfg)
    result = read_record(tmp_path)
    assert (result.status, result.error, result.iterations) == ("failed", "OSError: disk full", 1)
    run(cfg, resume=True)
    result = read_record(tmp_path)
    assert (result.status, result.error, result.iterations) == ("done", None, 1)


def test_failure_before_training_is_recorded(tiny: Callable[..., Any], tmp_path: Path) -> None:
    """Weights that cannot be downloaded are noticed only in the run."""
    cfg = tiny(MASK, tmp_path / "run", "model.backbone.bottom_up.pretrained=True")
    with pytest.raises(ConfigError, match=r"pretrained=False") as error:
        run(cfg)
    result = read_record(tmp_path / "run")
    assert result.status == "failed"
    assert result.error == str(error.value)[:200].strip()
