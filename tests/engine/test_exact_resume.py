"""A run that is cut off at any moment and continued ends bit for bit like one that is not."""

from __future__ import annotations

import errno
import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable, Container
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.run_folders import metrics_lines, read_record
from outcomes import differences, events, leaves, outcome

from d2timm import ConfigError
from d2timm.cli import main
from d2timm.engine import event_log, training, validation
from d2timm.engine.process import run
from d2timm.engine.trainer import Trainer
from d2timm.runs.checkpoint import AtomicCheckpointer
from d2timm.runs.record import Record
from d2timm.utils.signals import Interrupted

# Processes that are forked here train. torch refuses them a backward pass if it knew of a device beside the
# CPU at its first one, and its fake tensors, which other tests use, register one; so this is the first one.
torch.ones(1, requires_grad=True).sum().backward()

MASK = "mask_rcnn_timm.py"
SCHEDULE = [
    "train.max_iter=11",
    "train.eval_period=4",
    "train.checkpointer.period=3",
    "train.log_period=2",
    "train.ema.enabled=True",
    "train.ema.decay=0.9",
    "optimizer.lr=0.01",
]
SHOTS = 11  # iterations

Compose = Callable[..., Any]


@pytest.fixture(scope="module")
def compose(tiny: Callable[..., Any]) -> Compose:
    """A config of a run in a folder."""
    return lambda folder, *more: tiny(MASK, folder, *SCHEDULE, *more)


@pytest.fixture(scope="module")
def uninterrupted(compose: Compose, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a run gives that is not interrupted."""
    folder = tmp_path_factory.mktemp("uninterrupted") / "run"
    run(compose(folder))
    return outcome(folder)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def killed(cfg: Any, prepare: Callable[[], None]) -> int:
    """Train in a process that dies where ``prepare`` makes it; returns its exit code."""

    def train() -> None:
        prepare()
        run(cfg, resume=True)

    process = multiprocessing.get_context("fork").Process(target=train)
    process.start()
    process.join(60)
    assert process.exitcode is not None
    return process.exitcode


def at_call(owner: Any, name: str, count: int, after: bool = False) -> Callable[[], None]:
    """Die before, or after, the call of a function with this number, from 1."""

    def prepare() -> None:
        original, calls = getattr(owner, name), [0]

        def replaced(*args: Any, **kwargs: Any) -> Any:
            calls[0] += 1
            if calls[0] == count and not after:
                die()
            result = original(*args, **kwargs)
            if calls[0] == count:
                die()
            return result

        setattr(owner, name, replaced)

    return prepare


def in_the_middle_of_a_file(count: int) -> Callable[[], None]:
    """Die after half of the checkpoint with this number is written."""

    def prepare() -> None:
        save, calls = torch.save, [0]

        def half(data: Any, file: Path) -> None:
            save(data, file)
            calls[0] += 1
            if calls[0] == count:
                file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
                die()

        torch.save = half

    return prepare


MOMENTS = {
    "before the first checkpoint": at_call(training.SaveCheckpoints, "before_step", 2),
    "in an iteration": at_call(training.SaveCheckpoints, "before_step", 6),
    "in the first checkpoint": in_the_middle_of_a_file(1),
    "in a checkpoint": in_the_middle_of_a_file(4),
    "before a checkpoint is tagged": at_call(AtomicCheckpointer, "tag_last_checkpoint", 2),
    "before an evaluation": at_call(training.Evaluate, "after_step", 4),
    "in an evaluation": at_call(validation, "detect_and_evaluate", 1),
    "after an evaluation": at_call(validation, "detect_and_evaluate", 2, after=True),
    "before the best weights": at_call(AtomicCheckpointer, "save_weights", 1),
    "after the best weights": at_call(AtomicCheckpointer, "save_weights", 1, after=True),
    "before the record of an evaluation": at_call(Record, "try_write", 2),
    "before metrics are written": at_call(event_log._JSONWriter, "write", 2),
    "after metrics are written": at_call(event_log._JSONWriter, "write", 3, after=True),
    "in the last evaluation": at_call(validation, "detect_and_evaluate", 3),
    "before the pictures": at_call(validation, "draw_predictions", 1),
}


@pytest.mark.sampled("resume", every=3)
@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_run_ends_like_an_uninterrupted_one(
    moment: str, compose: Compose, uninterrupted: dict[str, Any], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    assert killed(compose(folder), MOMENTS[moment]) == -signal.SIGKILL
    run(compose(folder), resume=True)
    assert differences(outcome(folder), uninterrupted) == []
    assert {file.name for file in folder.glob(".*")} == {".lock"}, "nothing is left of what was killed"


def test_run_that_is_killed_again_and_again(
    compose: Compose, uninterrupted: dict[str, Any], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    starts = 0
    while killed(compose(folder), at_call(training.SaveCheckpoints, "before_step", 5)):
        starts += 1
        assert starts < SHOTS
    assert starts > 1
    assert differences(outcome(folder), uninterrupted) == []
    assert len(list(folder.glob("model_0*.pth"))) == 3, "the number of checkpoints is bounded"


@pytest.mark.sampled("resume", every=3)
@pytest.mark.parametrize("pauses", [(2, 5, 9), (4,), (6, 8)])
def test_paused_run_ends_like_an_uninterrupted_one(
    pauses: tuple[int, ...], compose: Compose, uninterrupted: dict[str, Any], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    for end in pauses:
        run(compose(folder, f"train.pause_at={end}"), resume=True)
    run(compose(folder), resume=True)
    # a pause adds an evaluation, whose weights may be the best
    ignored = ("result.json/best_",)
    assert [d for d in differences(outcome(folder), uninterrupted) if not d.startswith(ignored)] == []
    assert len(list(folder.glob("model_0*.pth"))) <= 3


@pytest.mark.sampled("resume", every=2)
@pytest.mark.parametrize("workers", [2, 4])
def test_number_of_workers_does_not_matter(
    workers: int, compose: Compose, uninterrupted: dict[str, Any], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    cfg = compose(folder, f"dataloader.train.num_workers={workers}")
    assert killed(cfg, at_call(training.SaveCheckpoints, "before_step", 6)) == -signal.SIGKILL
    run(cfg, resume=True)
    assert differences(outcome(folder), uninterrupted) == []


@pytest.mark.sampled("resume", every=3)
@pytest.mark.parametrize(
    "more",
    [
        ["train.accumulate=2", "dataloader.train.total_batch_size=1"],
        ["train.max_iter=null", "train.epochs=3"],
        ["train.early_stop=1"],
        ["dataloader.train.repeat_threshold=0.9", "train.seed=5"],
        ["optimizer.opt=sgd", "+optimizer.momentum=0.9"],
    ],
    ids=["accumulate", "epochs", "early stop", "repeated classes", "momentum"],
)
def test_other_ways_of_training(more: list[str], compose: Compose, tmp_path: Path) -> None:
    run(compose(tmp_path / "whole", *more))
    folder = tmp_path / "parts"
    assert (
        killed(compose(folder, *more), at_call(training.SaveCheckpoints, "before_step", 5)) == -signal.SIGKILL
    )
    run(compose(folder, *more), resume=True)
    assert (
        differences(outcome(folder, last(folder)), outcome(tmp_path / "whole", last(tmp_path / "whole")))
        == []
    )
    assert read_record(folder).stopped == read_record(tmp_path / "whole").stopped


def last(folder: Path) -> str:
    return (folder / "last_checkpoint").read_text().removesuffix(".pth")


@pytest.mark.parametrize(
    ("hook", "iterations"),
    [(training.RecordProgress, 5), (event_log.EventLog, 6)],
    ids=["in a step", "between two steps"],
)
def test_interrupted_run_is_saved_and_continues(
    hook: Any,
    iterations: int,
    compose: Compose,
    uninterrupted: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "run"
    step, calls = hook.after_step, [0]

    def interrupt(self: Any) -> None:
        calls[0] += 1
        if calls[0] == 5:
            os.kill(os.getpid(), signal.SIGTERM)
        step(self)

    monkeypatch.setattr(hook, "after_step", interrupt)
    with pytest.raises(Interrupted):
        run(compose(folder))
    record = read_record(folder)
    assert (record.status, record.error) == ("interrupted", "interrupted by SIGTERM")
    assert (record.iterations, last(folder)) == (iterations, f"model_{iterations - 1:07}")
    run(compose(folder), resume=True)
    assert differences(outcome(folder), uninterrupted) == []


def test_signal_in_an_evaluation_stops_at_once(
    compose: Compose, uninterrupted: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    evaluate = validation.detect_and_evaluate

    def interrupt(*args: Any) -> Any:
        os.kill(os.getpid(), signal.SIGUSR1)
        raise AssertionError("it goes on")

    monkeypatch.setattr(validation, "detect_and_evaluate", interrupt)
    with pytest.raises(Interrupted):
        run(compose(folder))
    assert (read_record(folder).status, last(folder)) == ("interrupted", "model_0000003")
    monkeypatch.setattr(validation, "detect_and_evaluate", evaluate)
    run(compose(folder), resume=True)
    assert differences(outcome(folder), uninterrupted) == []


def test_each_iteration_is_written_once(compose: Compose, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    killed(compose(folder), at_call(training.SaveCheckpoints, "before_step", 6))
    run(compose(folder), resume=True)
    iterations = [line["iteration"] for line in metrics_lines(folder)]
    assert len(iterations) == len(set(iterations))
    for pairs in events(folder).values():
        steps = [step for step, _ in pairs]
        assert len(steps) == len(set(steps))


def test_changed_rate_takes_effect(compose: Compose, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run(compose(folder, "train.pause_at=6"))
    shutil.copytree(folder, tmp_path / "same")
    run(compose(folder, "optimizer.lr=0.005", "optimizer.weight_decay=0.5"), resume=True)
    run(compose(tmp_path / "same"), resume=True)
    state, same = (
        torch.load(path / "model_final.pth", weights_only=True)["trainer"]["optimizer"]["param_groups"]
        for path in (folder, tmp_path / "same")
    )
    assert [group["lr"] for group in state] == pytest.approx([group["lr"] / 2 for group in same])
    assert {group["weight_decay"] for group in state} == {0.0, 0.5}
    assert {group["weight_decay"] for group in same} == {0.0, 0.05}
    assert "The optimizer continues with" in (folder / "log.txt").read_text()


def test_checkpoint_of_an_earlier_version_continues_with_a_warning(compose: Compose, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run(compose(folder, "train.pause_at=6"))
    file = folder / "model_final.pth"
    state = torch.load(file, weights_only=True)
    state["trainer"] = {key: state["trainer"][key] for key in ("iteration", "optimizer")}
    torch.save(state, file)
    run(compose(folder), resume=True)
    assert "start anew" in (folder / "log.txt").read_text()
    assert read_record(folder).iterations == 11


def test_other_data_continues_with_a_warning(compose: Compose, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run(compose(folder, "train.pause_at=6"))
    run(compose(folder, "dataloader.train.total_batch_size=3", "train.seed=9"), resume=True)
    assert (
        "not that of the run so far: seed 9 instead of 0, batch size 3 instead of 2"
        in (folder / "log.txt").read_text()
    )


@pytest.mark.sampled("resume")
@pytest.mark.slow
def test_two_processes(compose: Compose, small_coco: Any, tmp_path: Path) -> None:
    from conftest import TINY

    overrides = [*TINY, *small_coco.overrides, *SCHEDULE, "train.max_iter=8"]

    def train(folder: Path, *more: str) -> int:
        arguments = [*overrides, f"train.output_dir={folder}", *more]
        return main(["train", "--config-file", MASK, "--num-gpus", "2", "--resume", *arguments])

    assert train(tmp_path / "whole") == 0
    assert train(tmp_path / "parts", "train.pause_at=5") == 0
    shutil.copy(tmp_path / "parts/model_0000003.pth", tmp_path / "parts/model_final.pth")  # cut off after it
    assert train(tmp_path / "parts") == 0
    assert differences(outcome(tmp_path / "parts"), outcome(tmp_path / "whole")) == []


def test_diverged_run_goes_back_with_a_lower_rate(
    compose: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    step, calls = Trainer._add_gradients, [0]

    def diverge(self: Any, batch: Any, share: float) -> Any:
        calls[0] += 1
        losses = step(self, batch, share)
        return {name: loss * torch.nan for name, loss in losses.items()} if calls[0] == 6 else losses

    monkeypatch.setattr(Trainer, "_add_gradients", diverge)
    lower = ["train.on_nan.go_back=1", "train.on_nan.lr_factor=0.1"]
    run(compose(folder, *lower))
    record = read_record(folder)
    assert (record.status, record.iterations, record.times_back) == ("done", 11, 1)
    rates = {line["iteration"]: line["lr"] for line in metrics_lines(folder) if "lr" in line}
    run(compose(tmp_path / "whole"))
    expected = {line["iteration"]: line["lr"] for line in metrics_lines(tmp_path / "whole") if "lr" in line}
    assert [rates[i] / expected[i] for i in (1, 3, 5, 7, 9)] == pytest.approx([1, 1, 0.1, 0.1, 0.1])
    calls[0] = 0
    with pytest.raises(ConfigError, match=r"not finite at iteration 5: .* for the images \["):
        run(compose(tmp_path / "other"))
    assert read_record(tmp_path / "other").status == "failed"
    assert last(tmp_path / "other") == "model_0000003"


def test_full_disk_keeps_the_newest_checkpoint_and_the_training_goes_on(
    compose: Compose, uninterrupted: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    save, calls = torch.save, [0]

    def full(data: Any, file: Any) -> None:
        calls[0] += isinstance(file, Path)
        if isinstance(file, Path) and calls[0] in missing:
            file.write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        save(data, file)

    missing: Container[int] = (2, 4)
    monkeypatch.setattr(torch, "save", full)
    run(compose(folder))
    assert differences(outcome(folder), uninterrupted) == []
    assert read_record(folder).error is None
    log = (folder / "log.txt").read_text()
    assert "No space left on device" in log
    assert "the newest checkpoint is model_0000002.pth; the training continues" in log
    missing = range(1, 999)
    with pytest.raises(ConfigError, match=r"model_final\.pth cannot be written: No space left .*--resume$"):
        run(compose(tmp_path / "other"))
    assert read_record(tmp_path / "other").status == "failed"


def test_folder_that_vanishes_is_created_anew(
    compose: Compose, uninterrupted: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    step = training.Schedule.after_step

    def vanish(self: Any) -> None:
        step(self)
        if self.trainer.iter == 4:
            shutil.rmtree(folder)

    monkeypatch.setattr(training.Schedule, "after_step", vanish)
    run(compose(folder))
    assert read_record(folder).status == "done"
    state = torch.load(folder / "model_final.pth", weights_only=True)
    weights = dict(leaves({key: state[key] for key in ("model", "ema")}, "checkpoint"))
    assert weights
    assert weights.items() <= uninterrupted.items()
    assert (folder / "config.yaml").is_file()
