"""A run from its start to its folder: trained, killed, resumed, evaluated, failed."""

from __future__ import annotations

import io
import json
import logging
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

from d2timm import ConfigError
from d2timm.config.build import build_model, build_on_meta
from d2timm.config.lazy import load, to_plain
from d2timm.engine.launch import launch
from d2timm.engine.run import main, run
from d2timm.engine.training import _metric as main_metric_of
from d2timm.engine.validation import evaluate
from d2timm.runs.record import Record, is_held

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "lazyconfig_train.py"
RECIPES = ["faster_rcnn_timm.py", "mask_rcnn_timm.py"]
MASK = "mask_rcnn_timm.py"
TWELVE = {"AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"}


def record(folder: Path) -> Record:
    found = Record.read(folder)
    assert found is not None
    return found


def lines(folder: Path) -> list[dict[str, Any]]:
    """The lines of metrics.json."""
    return [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]


def series(folder: Path, key: str) -> dict[int, float]:
    """Iteration -> value; of what was trained twice, because of a kill, the later one."""
    return {line["iteration"]: line[key] for line in lines(folder) if key in line}


def steps(checkpoint: dict[str, Any]) -> set[int]:
    """How many steps the optimizer has made, for each parameter."""
    return {int(state["step"]) for state in checkpoint["trainer"]["optimizer"]["state"].values()}


def command(recipe: str, overrides: list[str], **options: Any) -> Namespace:
    """A parsed command line of scripts/lazyconfig_train.py."""
    defaults = {
        "config_file": str(ROOT / "lazy_configs" / recipe),
        "resume": False,
        "eval_only": False,
        "dry_run": False,
        "num_gpus": 1,
        "num_machines": 1,
        "machine_rank": 0,
        "dist_url": "auto",
        "overrides": overrides,
    }
    return Namespace(**{**defaults, **options})


@pytest.fixture(scope="module", params=RECIPES)
def trained(
    request: pytest.FixtureRequest, tiny: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> Namespace:
    """A run of four iterations of each recipe; not to be changed."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    cfg = tiny(request.param, folder)
    run(cfg)
    return Namespace(recipe=request.param, folder=folder, cfg=cfg)


@pytest.fixture(scope="module")
def trained_masks(tiny: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Namespace:
    """One run of Mask R-CNN; not to be changed."""
    folder = tmp_path_factory.mktemp("masks") / "run"
    run(tiny(MASK, folder))
    return Namespace(recipe=MASK, folder=folder)


# The run folder


def test_run_leaves_every_file(trained: Namespace) -> None:
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
        "model_0000003.pth",
        "model_best.pth",
        "model_final.pth",
        "predictions.png",
    }
    assert "d2timm" in (trained.folder / "log.txt").read_text()


def test_result_tells_all_of_the_run(trained: Namespace) -> None:
    result = record(trained.folder)
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


def test_config_of_the_run_is_the_config(trained: Namespace) -> None:
    saved = load(trained.folder / "config.yaml")
    assert to_plain(saved) == to_plain(trained.cfg)
    assert saved.data.name == "custom", "what auto meant is written down"


def test_metrics_hold_every_iteration_and_the_closing_evaluation(trained: Namespace) -> None:
    losses = series(trained.folder, "total_loss")
    assert {0, 1, 2, 3} <= set(losses)
    assert all(math.isfinite(loss) for loss in losses.values())
    result = record(trained.folder)
    for task, numbers in result.metrics.items():
        evaluated = series(trained.folder, f"{task}/AP")
        assert len(evaluated) == 2, "one in the middle, one at the end"
        assert max(evaluated) >= 3
        assert evaluated[max(evaluated)] == pytest.approx(numbers["AP"])


def test_last_checkpoint_holds_all_that_resuming_needs(trained: Namespace) -> None:
    name = (trained.folder / "last_checkpoint").read_text()
    assert name == "model_final.pth"
    state = torch.load(trained.folder / name, weights_only=True)
    assert state["iteration"] == 3
    assert steps(state) == {4}


def test_same_seed_same_losses(tiny: Callable[..., Any], trained_masks: Namespace, tmp_path: Path) -> None:
    run(tiny(MASK, tmp_path / "again"))
    run(tiny(MASK, tmp_path / "other", "train.seed=1"))
    losses = series(trained_masks.folder, "total_loss")
    assert series(tmp_path / "again", "total_loss") == losses
    assert series(tmp_path / "other", "total_loss") != losses


def test_log_is_of_one_run(tiny: Callable[..., Any], tmp_path: Path) -> None:
    for name in ("first", "second"):
        run(tiny(MASK, tmp_path / name, "data.settings.custom.max_iter=1"))
    for name, other in (("first", "second"), ("second", "first")):
        text = (tmp_path / name / "log.txt").read_text()
        assert str(tmp_path / name) in text
        assert str(tmp_path / other) not in text


def test_logs_of_others_stay_open(tiny: Callable[..., Any], tmp_path: Path) -> None:
    """Only what a run has opened is closed by the next one."""
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


def test_earlier_run_is_moved_aside(
    tiny: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    for iterations in (1, 2, 3):
        run(tiny(MASK, folder, f"data.settings.custom.max_iter={iterations}"))
    kept = {name: record(tmp_path / name).iterations for name in ("run~1", "run~2", "run")}
    assert kept == {"run~1": 1, "run~2": 2, "run": 3}
    for name, iterations in kept.items():
        assert set(series(tmp_path / name, "total_loss")) >= set(range(iterations))
        log = (tmp_path / name / "log.txt").read_text()
        assert f"iter: {iterations - 1} " in log
        assert f"iter: {iterations} " not in log
    assert f"{folder} held an earlier run, which is now {folder}~1" in capsys.readouterr().out


def test_evaluation_at_the_end_only(tiny: Callable[..., Any], tmp_path: Path) -> None:
    run(tiny(MASK, tmp_path, "train.eval_period=0", "data.settings.custom.max_iter=3"))
    assert len(series(tmp_path, "bbox/AP")) == 1
    assert record(tmp_path).metrics


def test_weights_to_start_from(tiny: Callable[..., Any], trained_masks: Namespace, tmp_path: Path) -> None:
    file = trained_masks.folder / "model_final.pth"
    still = ("optimizer.lr=0", "data.settings.custom.max_iter=1")
    cfg = tiny(MASK, tmp_path, f"train.init_checkpoint={file}", *still)
    run(cfg)
    before, after = (torch.load(f, weights_only=True) for f in (file, tmp_path / "model_final.pth"))
    assert after["iteration"] == 0, "the weights are taken over, not the schedule"
    names = [name for name, _ in build_on_meta(cfg).named_parameters()]
    assert all(torch.equal(before["model"][name], after["model"][name]) for name in names)


def test_boxes_alone_train_faster_rcnn(tiny: Callable[..., Any], small_coco: Any, tmp_path: Path) -> None:
    overrides = ["data.settings.custom.max_iter=1"]
    for split in ("train", "val"):
        coco = json.loads(getattr(small_coco, f"{split}_json").read_text())
        for annotation in coco["annotations"]:
            del annotation["segmentation"], annotation["area"]
        (tmp_path / f"{split}.json").write_text(json.dumps(coco))
        overrides.append(f"data.{split}_json={tmp_path / split}.json")
    run(tiny("faster_rcnn_timm.py", tmp_path / "run", *overrides))
    assert record(tmp_path / "run").status == "done"


# Resuming


def wait_for(file: Path, process: subprocess.Popen[bytes], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not file.is_file():
        assert process.poll() is None, f"ended with {process.returncode} before {file.name}"
        assert time.monotonic() < end
        time.sleep(0.005)


@pytest.mark.slow
def test_killed_run_goes_on_where_its_checkpoint_is(
    tiny_overrides: Callable[..., list[str]], tmp_path: Path
) -> None:
    """kill -9 in the middle; afterwards schedule, optimizer and length are those of a run of its own."""
    iterations, period = 40, 5
    more = [
        f"data.settings.custom.max_iter={iterations}",
        f"train.checkpointer.period={period}",
        "train.eval_period=0",
    ]
    folder, whole = tmp_path / "killed", tmp_path / "whole"
    arguments = ["--config-file", str(ROOT / "lazy_configs" / MASK), *tiny_overrides(MASK, folder, *more)]
    with (tmp_path / "output").open("wb") as output:
        process = subprocess.Popen([sys.executable, SCRIPT, *arguments], stdout=output, stderr=output)
        try:
            wait_for(folder / "last_checkpoint", process)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
    assert process.returncode == -signal.SIGKILL
    assert (record(folder).status, record(folder).pid) == ("running", process.pid)
    assert not is_held(folder)
    checkpoint = (folder / "last_checkpoint").read_text()
    saved = int(checkpoint.removeprefix("model_").removesuffix(".pth"))
    assert period - 1 <= saved < iterations - 1
    seen, seconds = len(lines(folder)), record(folder).train_seconds

    main(command(MASK, tiny_overrides(MASK, folder, *more), resume=True))
    main(command(MASK, tiny_overrides(MASK, whole, *more)))

    result = record(folder)
    assert (result.status, result.iterations) == ("done", iterations)
    assert result.pid == os.getpid()
    assert result.train_seconds > seconds
    assert lines(folder)[seen]["iteration"] == saved + 1
    rates, expected = series(folder, "lr"), series(whole, "lr")
    assert set(rates) >= set(range(saved + 1, iterations))
    assert rates.items() <= expected.items()  # killed between a checkpoint and its line, one is missing
    assert len(set(expected.values())) > iterations // 2, "a schedule that moves"
    states = [torch.load(f / "model_final.pth", weights_only=True) for f in (folder, whole)]
    for state in states:
        assert state["iteration"] == iterations - 1
        assert steps(state) == {iterations}
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
    old, new = record(trained_masks.folder), record(folder)
    assert (new.status, new.iterations, new.metrics) == ("done", 4, old.metrics)
    assert new.train_seconds == old.train_seconds
    assert (folder / "predictions.png").is_file()


def test_resuming_a_finished_run_for_longer(
    tiny: Callable[..., Any], trained_masks: Namespace, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(trained_masks.folder, folder)
    run(tiny(MASK, folder, "data.settings.custom.max_iter=6"), resume=True)
    assert record(folder).iterations == 6
    assert record(folder).status == "done"
    assert torch.load(folder / "model_final.pth", weights_only=True)["iteration"] == 5


def test_resuming_where_there_is_nothing_starts(
    tiny: Callable[..., Any], trained_masks: Namespace, tmp_path: Path
) -> None:
    run(tiny(MASK, tmp_path / "run"), resume=True)
    assert record(tmp_path / "run").status == "done"
    losses = series(trained_masks.folder, "total_loss")
    assert series(tmp_path / "run", "total_loss") == losses


def test_metric_that_runs_are_compared_by_is_the_users(
    tiny: Callable[..., Any], trained_masks: Namespace, tmp_path: Path
) -> None:
    run(tiny(MASK, tmp_path / "run", "train.metric=segm/AP50"))
    result = record(tmp_path / "run")
    assert result.metric == "segm/AP50"
    assert result.score == result.metrics["segm"]["AP50"]
    assert [iterations for iterations, _ in result.scores] == [2, 4]
    assert result.scores[-1] == (4, result.score)
    assert result.metrics == record(trained_masks.folder).metrics


def test_resumed_run_keeps_what_was_known_of_it(
    tiny: Callable[..., Any], trained_masks: Namespace, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(trained_masks.folder, folder)
    earlier = record(folder)
    earlier.status, earlier.pid, earlier.host = "running", 1, "elsewhere"
    earlier.error, earlier.peak_memory_bytes = "killed by SIGKILL", 2**60
    earlier.write(folder)
    told = Record(command=["python", "again.py"], multiply_adds=7)
    run(tiny(MASK, folder, "data.settings.custom.max_iter=6"), resume=True, record=told)
    result = record(folder)
    assert (result.status, result.error, result.max_iter) == ("done", None, 6)
    assert result.scores[:2] == record(trained_masks.folder).scores
    assert [iterations for iterations, _ in result.scores] == [2, 4, 6]
    assert result.peak_memory_bytes == 2**60
    assert result.train_seconds > earlier.train_seconds
    assert (result.command, result.multiply_adds) == (["python", "again.py"], 7)
    assert (result.pid, result.host) == (os.getpid(), socket.gethostname())


def test_new_run_knows_nothing_of_the_one_that_was_there(
    tiny: Callable[..., Any], trained_masks: Namespace, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(trained_masks.folder, folder)
    run(tiny(MASK, folder, "data.settings.custom.max_iter=1", "train.eval_period=0"))
    assert [iterations for iterations, _ in record(folder).scores] == [1]
    assert record(tmp_path / "run~1") == record(trained_masks.folder)


# The best and the average


@pytest.fixture(scope="module")
def averaged(tiny: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with averaged weights, which lag so far behind that they score otherwise; not to be changed."""
    folder = tmp_path_factory.mktemp("averaged") / "run"
    run(tiny(MASK, folder, *AVERAGED))
    return folder


AVERAGED = ["train.ema.enabled=True", "train.ema.decay=0.9", "train.ema.warmup=False", "optimizer.lr=0.01"]


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    assert a.keys() == b.keys()
    return all(torch.equal(a[name], b[name]) for name in a)


def test_best_weights_are_kept_not_to_resume_from(
    tiny: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over both parts of a run, whose best evaluation is the second of four."""
    scores = iter([10.0, 40.0, 30.0, 20.0])
    monkeypatch.setattr("d2timm.engine.training.evaluate", lambda cfg, model: {"bbox": {"AP": next(scores)}})
    often = ["train.eval_period=1", "train.checkpointer.period=1", "train.checkpointer.max_to_keep=9"]
    run(tiny(MASK, tmp_path / "run", *often, "train.pause_at=2"))
    run(tiny(MASK, tmp_path / "run", *often), resume=True)
    result = record(tmp_path / "run")
    assert (result.best_score, result.best_iterations) == (40.0, 2)
    best = torch.load(tmp_path / "run/model_best.pth", weights_only=True)
    assert set(best) == {"model", "iteration"}
    assert best["iteration"] == 1
    states = [torch.load(tmp_path / f"run/model_000000{n}.pth", weights_only=True)["model"] for n in range(4)]
    assert [same(best["model"], state) for state in states] == [False, True, False, False]
    assert (tmp_path / "run/last_checkpoint").read_text() == "model_final.pth"
    assert "Best bbox/AP 40.00, after 2 iterations: " in (tmp_path / "run/log.txt").read_text()


def test_metric_that_there_is_none_of_fails_the_run(tiny: Callable[..., Any], tmp_path: Path) -> None:
    cfg = tiny(MASK, tmp_path, "train.metric=keypoints/AP", "data.settings.custom.max_iter=1")
    with pytest.raises(ConfigError, match=r"train\.metric=keypoints/AP: the evaluation gives bbox/AP, "):
        run(cfg)
    result = record(tmp_path)
    assert result.status == "failed"
    assert set(result.metrics) == {"bbox", "segm"}, "what was measured is not lost"


@pytest.mark.parametrize(
    ("recipe", "overrides", "metric"),
    [
        (MASK, [], "bbox/AP"),
        (MASK, ["~data.tasks", "~train.metric"], "bbox/AP"),
        (MASK, ["data.tasks=[sem_seg]"], "sem_seg/mIoU"),
        (MASK, ["data.tasks=[sem_seg]", "train.metric=segm/AP"], "segm/AP"),
    ],
)
def test_metric_follows_from_what_is_found(
    recipe: str, overrides: list[str], metric: str, tiny: Callable[..., Any], tmp_path: Path
) -> None:
    """Saved configs of earlier versions do not say what is found."""
    assert main_metric_of(tiny(recipe, tmp_path, *overrides)) == metric


def test_averaged_weights_are_those_that_are_evaluated(averaged: Path, tiny: Callable[..., Any]) -> None:
    state = torch.load(averaged / "model_final.pth", weights_only=True)
    assert set(state) == {"model", "trainer", "ema", "iteration"}
    assert not same(state["model"], state["ema"])
    scores = {}
    for key in ("model", "ema"):
        cfg = tiny(MASK, averaged.parent / key)
        model = build_model(cfg)
        model.load_state_dict(state[key])
        scores[key] = evaluate(cfg, model)["bbox"]
    result = record(averaged)
    finite = {key: value for key, value in result.metrics["bbox"].items() if value is not None}
    assert finite == {key: scores["ema"][key] for key in finite}
    assert finite != {key: scores["model"][key] for key in finite}
    best = torch.load(averaged / "model_best.pth", weights_only=True)
    assert set(best) == {"model", "ema", "iteration"}
    assert "Evaluations are of averaged weights" in (averaged / "log.txt").read_text()


@pytest.mark.parametrize("enabled", [True, False])
def test_eval_only_is_of_the_weights_that_the_config_says(
    enabled: bool, averaged: Path, tiny_overrides: Callable[..., list[str]], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(averaged, folder)
    overrides = [f"train.output_dir={folder}", f"train.ema.enabled={enabled}"]
    main(command(MASK, overrides, config_file=str(averaged / "config.yaml"), eval_only=True))
    assert (record(folder).metrics == record(averaged).metrics) == enabled
    told = (folder / "log.txt").read_text()
    assert f"The {'averaged' if enabled else 'trained'} weights of {folder}/model_final.pth" in told


def test_checkpoint_without_an_average(
    trained_masks: Namespace, tiny: Callable[..., Any], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(trained_masks.folder, folder)
    cfg = tiny(MASK, folder, "train.ema.enabled=True", "data.settings.custom.max_iter=6")
    for how in ({"eval_only": True}, {"resume": True}):
        with pytest.raises(
            ConfigError, match=r"model_final\.pth holds no 'ema': use train\.ema\.enabled=False"
        ):
            run(cfg, **how)


def test_resumed_average_goes_on(averaged: Path, tiny: Callable[..., Any], tmp_path: Path) -> None:
    """With weights that stand still, the average moves on to them by its decay."""
    folder = tmp_path / "run"
    shutil.copytree(averaged, folder)
    name = "roi_heads.box_predictor.cls_score.weight"
    before = torch.load(folder / "model_final.pth", weights_only=True)
    for group in before["trainer"]["optimizer"]["param_groups"]:
        group.update(lr=0.0, initial_lr=0.0)
    torch.save(before, folder / "model_final.pth")
    run(tiny(MASK, folder, *AVERAGED, "data.settings.custom.max_iter=6"), resume=True)
    after = torch.load(folder / "model_final.pth", weights_only=True)
    assert torch.equal(after["model"][name], before["model"][name])
    expected = 0.9**2 * before["ema"][name] + (1 - 0.9**2) * before["model"][name]
    torch.testing.assert_close(after["ema"][name], expected)


def test_run_with_all_of_it(tiny: Callable[..., Any], tmp_path: Path) -> None:
    """Accumulated, in bf16 on the CPU, averaged, in epochs: the six images, four a step."""
    mixed = ["train.amp.enabled=True", "train.amp.precision=bf16", "train.ema.enabled=True"]
    cfg = tiny(MASK, tmp_path, *mixed, "train.accumulate=2", "train.epochs=2", "train.eval_epochs=1")
    run(cfg)
    saved = load(tmp_path / "config.yaml")
    assert to_plain(saved) == to_plain(cfg), "in epochs as before"
    run(saved, resume=True)  # and so it has the same length again
    result = record(tmp_path)
    assert (result.status, result.iterations, result.max_iter) == ("done", 3, 3)
    assert [iterations for iterations, _ in result.scores] == [2, 3]
    assert len(series(tmp_path, "total_loss")) == 3
    assert all(math.isfinite(loss) for loss in series(tmp_path, "total_loss").values())
    state = torch.load(tmp_path / "model_final.pth", weights_only=True)
    assert {value.dtype for value in state["model"].values()} <= {torch.float32, torch.int64}


@pytest.mark.slow
def test_processes_average_accumulate_and_stop_together(
    tiny: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    folder = tmp_path / "run"
    cfg = tiny(MASK, folder, *AVERAGED, "train.accumulate=2", "train.early_stop=1")
    two = Namespace(num_gpus=2, num_machines=1, machine_rank=0, dist_url="auto")
    launch(run, two, cfg)
    result = record(folder)
    assert (result.status, result.error) == ("done", None)
    assert result.iterations in (2, 4), "all processes stop together, or none"
    saved = torch.load(folder / "model_best.pth", weights_only=True)
    assert not any(name.startswith("module.") for name in (*saved["model"], *saved["ema"]))
    assert saved["model"].keys() == saved["ema"].keys()


# Evaluation


def test_eval_only_gives_the_metrics_of_the_closing_evaluation(
    trained: Namespace, tiny_overrides: Callable[..., list[str]], tmp_path: Path
) -> None:
    closing = record(trained.folder)
    folder = tmp_path / "run"
    shutil.copytree(trained.folder, folder)
    (folder / "predictions.png").unlink()
    emptied = record(folder)
    emptied.metrics = {}
    emptied.write(folder)
    config = (folder / "config.yaml").read_bytes()
    main(command(trained.recipe, tiny_overrides(trained.recipe, folder), eval_only=True))
    result = record(folder)
    assert result.metrics == closing.metrics
    assert (result.status, result.iterations) == ("done", 4)
    assert (folder / "predictions.png").is_file()
    assert (folder / "config.yaml").read_bytes() == config


def test_eval_only_of_a_file(
    trained_masks: Namespace, tiny_overrides: Callable[..., list[str]], tmp_path: Path
) -> None:
    overrides = tiny_overrides(
        MASK, tmp_path / "new", f"train.init_checkpoint={trained_masks.folder / 'model_final.pth'}"
    )
    main(command(MASK, overrides, eval_only=True))
    result = record(tmp_path / "new")
    assert result.metrics == record(trained_masks.folder).metrics
    assert result.status == "done"


@pytest.mark.parametrize("how", ["not named", "gone"])
def test_eval_only_needs_no_training_files(
    how: str, trained_masks: Namespace, small_coco: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(trained_masks.folder, folder)
    train = "null" if how == "not named" else tmp_path / "gone"
    overrides = [
        f"train.output_dir={folder}",
        f"data.train_json={train}",
        f"data.train_images={train}",
    ]
    main(command(MASK, overrides, config_file=str(folder / "config.yaml"), eval_only=True))
    assert record(folder).metrics == record(trained_masks.folder).metrics


# Failing


def test_diverging_run_is_recorded_as_failed(tiny: Callable[..., Any], tmp_path: Path) -> None:
    cfg = tiny(MASK, tmp_path, "optimizer.lr=1e30", "data.settings.custom.max_iter=20", "train.eval_period=0")
    with pytest.raises(FloatingPointError):
        run(cfg)
    result = record(tmp_path)
    assert result.status == "failed"
    assert result.error is not None
    assert result.error.startswith("FloatingPointError: ")
    assert result.iterations < 20


def test_interrupted_run_has_not_failed_and_goes_on(
    tiny: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*arguments: Any) -> None:
        raise KeyboardInterrupt

    cfg = tiny(MASK, tmp_path, "data.settings.custom.max_iter=2")
    with monkeypatch.context() as patch:
        patch.setattr("d2timm.engine.training.evaluate", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run(cfg)
    result = record(tmp_path)
    assert (result.status, result.error, result.iterations) == ("running", "KeyboardInterrupt", 2)
    assert not is_held(tmp_path)
    run(cfg, resume=True)
    result = record(tmp_path)
    assert (result.status, result.error, result.iterations) == ("done", None, 2)


def test_failure_after_training_is_recorded_until_the_run_is_resumed(
    tiny: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any) -> None:
        raise OSError("disk full")

    cfg = tiny(MASK, tmp_path, "data.settings.custom.max_iter=1")
    with monkeypatch.context() as patch:
        patch.setattr("d2timm.engine.training.draw_predictions", fail)
        with pytest.raises(OSError, match="disk full"):
            run(cfg)
    result = record(tmp_path)
    assert (result.status, result.error, result.iterations) == ("failed", "OSError: disk full", 1)
    run(cfg, resume=True)
    result = record(tmp_path)
    assert (result.status, result.error, result.iterations) == ("done", None, 1)


def test_failure_before_training_is_recorded(tiny: Callable[..., Any], tmp_path: Path) -> None:
    """Weights that cannot be had are found out late: in the run."""
    cfg = tiny(MASK, tmp_path / "run", "model.backbone.bottom_up.pretrained=True")
    with pytest.raises(ConfigError, match="could not be loaded"):
        run(cfg)
    assert record(tmp_path / "run").status == "failed"
    assert "could not be loaded" in str(record(tmp_path / "run").error)
