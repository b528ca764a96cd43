"""Hooks: progress in the record, schedules trained in parts, averaged weights and early stops."""

from __future__ import annotations

import math
import shutil
import statistics
import time
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers.run_folders import metrics_lines, optimizer_steps, put, read_record, series
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from d2timm.engine.hooks import (
    AverageWeights,
    RecordProgress,
    StopBelowMedian,
    StopEarly,
    Stopped,
    finished_scores,
)
from d2timm.engine.process import run
from d2timm.engine.trainer import Trainer
from d2timm.runs.checkpoint import AtomicCheckpointer
from d2timm.runs.record import Record, is_held

MASK = "mask_rcnn_timm.py"


# Progress


def test_training_seconds_add_up_and_are_written_every_period(
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


# Schedules in parts


@pytest.fixture(scope="module")
def full(trained_masks: Namespace) -> Path:
    """The folder of a run of four iterations without a pause; tests must not change it."""
    return Path(trained_masks.folder)


@pytest.fixture(scope="module")
def paused(tiny: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run paused after two of four iterations; tests must not change it."""
    folder = tmp_path_factory.mktemp("paused") / "run"
    run(tiny(MASK, folder, "train.pause_at=2"))
    return folder


def test_paused_run_is_done(paused: Path) -> None:
    result = read_record(paused)
    assert (result.status, result.iterations, result.max_iter) == ("done", 2, 4)
    assert (result.error, result.stopped) == (None, None)
    assert [iterations for iterations, _ in result.scores] == [2]
    assert result.score is not None
    assert (paused / "predictions.png").is_file()
    assert (paused / "last_checkpoint").read_text() == "model_final.pth"
    assert optimizer_steps(paused / "model_final.pth") == {2}


def test_paused_run_equals_the_full_run_up_to_the_pause(paused: Path, full: Path) -> None:
    losses = series(paused, "total_loss")
    assert losses
    assert losses.items() <= series(full, "total_loss").items()
    assert series(paused, "lr").items() <= series(full, "lr").items()
    assert read_record(paused).scores == read_record(full).scores[:1]
    weights, expected = (
        torch.load(file, weights_only=True)["model"]
        for file in (paused / "model_final.pth", full / "model_0000001.pth")
    )
    assert all(torch.equal(weights[name], expected[name]) for name in expected)


def test_resumed_run_has_the_schedule_of_the_full_run(
    tiny: Callable[..., Any], paused: Path, full: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(paused, folder)
    seconds = read_record(folder).train_seconds
    run(tiny(MASK, folder), resume=True)
    result = read_record(folder)
    assert (result.status, result.iterations, result.max_iter) == ("done", 4, 4)
    assert [iterations for iterations, _ in result.scores] == [2, 4]
    assert result.scores[0] == read_record(paused).scores[0]
    assert result.train_seconds > seconds
    rates = series(folder, "lr")
    assert rates == series(full, "lr")
    assert len(set(rates.values())) > 1, "the rate changes"
    assert optimizer_steps(folder / "model_final.pth") == optimizer_steps(full / "model_final.pth") == {4}
    iterations = [line["iteration"] for line in metrics_lines(folder) if "lr" in line]
    assert len(iterations) == len(set(iterations)), "no iteration is trained twice"


def test_resuming_until_the_same_pause_only_evaluates(
    tiny: Callable[..., Any], paused: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(paused, folder)
    before = {file.name: file.stat().st_mtime_ns for file in folder.glob("*.pth")}
    run(tiny(MASK, folder, "train.pause_at=2"), resume=True)
    assert {file.name: file.stat().st_mtime_ns for file in folder.glob("*.pth")} == before
    assert read_record(folder).scores == read_record(paused).scores
    assert read_record(folder).iterations == 2


def test_pause_after_the_end_has_no_effect(tiny: Callable[..., Any], tmp_path: Path) -> None:
    run(tiny(MASK, tmp_path, "train.pause_at=9", "train.max_iter=2", "train.eval_period=0"))
    assert (read_record(tmp_path).iterations, read_record(tmp_path).status) == (2, "done")
    assert (tmp_path / "model_final.pth").is_file()


# Averaged weights


class Toy(nn.Module):
    """A model with weights, running statistics and a counter."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"loss": self.layers(x).square().mean()}


class Average(SimpleNamespace):
    """A training of a toy with averaged weights, and its checkpointer."""

    def __init__(self, folder: Path, decay: float, warmup: bool, start: int = 0) -> None:
        generator = torch.Generator().manual_seed(0)
        batches = [torch.randn(5, 3, generator=generator) for _ in range(9)][start:]
        self.model = Toy()
        optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)
        self.trainer = Trainer(self.model, batches, optimizer)
        self.hook = AverageWeights(self.model, decay, warmup)
        self.trainer.register_hooks([self.hook])
        self.saved = AtomicCheckpointer(self.model, str(folder), trainer=self.trainer, ema=self.hook.averaged)

    def state(self) -> dict[str, Tensor]:
        return {name: value.clone() for name, value in self.hook.averaged.state_dict().items()}


@pytest.mark.parametrize("warmup", [True, False])
def test_weights_after_each_step_are_averaged(warmup: bool, tmp_path: Path) -> None:
    decay, steps = 0.6, 6
    run_ = Average(tmp_path, decay, warmup)
    names = {name for name, value in run_.model.state_dict().items() if value.is_floating_point()}
    expected: dict[str, Tensor] = {}
    for step in range(steps):
        run_.trainer.train(step, step + 1)
        state = run_.model.state_dict()
        rising = 1 - (1 + step) ** (-2 / 3) if warmup else decay
        keep = min(decay, rising) if step else 0.0
        expected = {name: keep * expected.get(name, 0.0) + (1 - keep) * state[name] for name in names}
        for name in names:
            torch.testing.assert_close(run_.state()[name], expected[name])
    assert run_.state()["layers.1.num_batches_tracked"] == steps
    assert not run_.hook.averaged.training
    assert not torch.equal(run_.state()["layers.0.weight"], run_.model.layers[0].weight)


def test_averaging_does_not_change_the_training(tmp_path: Path) -> None:
    averaged, plain = Average(tmp_path, 0.9, True), Average(tmp_path, 0.9, True)
    plain.trainer._hooks.clear()
    for run_ in (averaged, plain):
        run_.trainer.train(0, 6)
    assert all(map(torch.equal, averaged.model.state_dict().values(), plain.model.state_dict().values()))


@pytest.mark.parametrize("warmup", [True, False])
def test_average_of_a_resumed_run_equals_that_of_the_full_run(warmup: bool, tmp_path: Path) -> None:
    full, first = Average(tmp_path, 0.9, warmup), Average(tmp_path, 0.9, warmup)
    full.trainer.train(0, 7)
    first.trainer.train(0, 3)
    first.trainer.iter = 2  # as after its last step
    first.saved.save("model_0000002")
    second = Average(tmp_path, 0.9, warmup, start=3)
    second.saved.resume_or_load("", resume=True)
    second.trainer.train(second.trainer.iter + 1, 7)
    assert all(map(torch.equal, second.state().values(), full.state().values()))
    assert second.state().keys() == full.state().keys()


# Early stops


def ends_early(scores: list[float], patience: int) -> str | None:
    """The reason to stop a run with these scores, one every two iterations; None if it continues."""
    done = 2 * len(scores)
    evaluations = [(2 * n, score) for n, score in enumerate(scores, start=1)]
    hook = StopEarly(Record(scores=evaluations, max_iter=100), patience, 2)
    hook.trainer = SimpleNamespace(iter=done - 1, max_iter=100)
    try:
        hook.after_step()
    except Stopped as stopped:
        return str(stopped)
    return None


def test_run_without_improvement_stops_with_the_reason() -> None:
    assert ends_early([10.0, 30.0, 20.0], 2) is None
    reason = ends_early([10.0, 30.0, 20.0, 30.0], 2)
    assert reason is not None
    assert reason.startswith("stopped at iteration 8 of 100: ")
    for fact in ("bbox/AP", "30.00", "iteration 4", "2 evaluations"):
        assert fact in reason
    assert ends_early([10.0, 30.0, 20.0, 30.1], 2) is None
    assert ends_early([], 1) is None, "there are no scores"
    assert ends_early([30.0, 20.0, 10.0], 0) is None


@given(st.lists(st.integers(0, 5).map(float), min_size=1, max_size=8), st.integers(1, 4))
def test_patience(scores: list[float], patience: int) -> None:
    stopped = ends_early(scores, patience) is not None
    worse = [score <= max(scores[:n], default=-1.0) for n, score in enumerate(scores)]
    assert stopped == all(worse[-patience:])


# The median


def put_run(sweep: Path, name: str, *scores: tuple[int, float], **fields: Any) -> None:
    """Write the folder of another run; by default it has finished its four iterations."""
    put(sweep / name, **{"iterations": 4, "max_iter": 4, "scores": list(scores), **fields})


def stops(
    folder: Path, score: float, done: int = 2, min_runs: int = 1, period: int = 2, end: int = 4
) -> str | None:
    """The reason to stop a run with this score; None if it continues."""
    record = Record(iterations=done, max_iter=end, scores=[(done, score)])
    hook = StopBelowMedian(record, folder, min_runs, period)
    hook.trainer = SimpleNamespace(iter=done - 1, max_iter=end)
    try:
        hook.after_step()
    except Stopped as stopped:
        return str(stopped)
    return None


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of a run next to three finished ones, whose median score at iteration 2 is 20."""
    for name, score in (("a", 10.0), ("b", 20.0), ("c", 60.0)):
        put_run(tmp_path, name, (2, score), (4, 90.0))
    return tmp_path / "run"


def test_run_below_the_median_stops_with_the_reason(folder: Path) -> None:
    reason = stops(folder, 19.5)
    assert reason is not None
    assert reason.startswith("stopped at iteration 2 of 4: ")
    for fact in ("bbox/AP 19.50", "20.00", "3 finished runs"):
        assert fact in reason


@pytest.mark.parametrize("score", [20.0, 20.5, 100.0])
def test_run_at_or_above_the_median_continues(score: float, folder: Path) -> None:
    assert stops(folder, score) is None


def test_median_of_an_even_number_of_runs(folder: Path) -> None:
    put_run(folder.parent, "d", (2, 30.0))
    assert stops(folder, 24.9)
    assert stops(folder, 25.0) is None


@pytest.mark.parametrize(
    "fields",
    [
        {"status": "running"},
        {"status": "failed"},
        {"iterations": 2},  # paused
        {"iterations": 2, "stopped": "stopped at iteration 2"},
        {"scores": [(1, 99.0), (3, 99.0), (4, 99.0)]},
    ],
    ids=["running", "failed", "paused", "stopped", "other iterations"],
)
def test_unfinished_runs_do_not_count(fields: dict[str, Any], folder: Path) -> None:
    for name in "defgh":
        put_run(folder.parent, name, **{"scores": [(2, 99.0)], **fields})
    assert stops(folder, 20.0) is None
    assert sorted(finished_scores(folder.parent, 2)) == [10.0, 20.0, 60.0]


def test_too_few_finished_runs_stop_no_run(folder: Path) -> None:
    assert stops(folder, 0.0, min_runs=4) is None
    assert stops(folder, 0.0, min_runs=3)


def test_off_by_default(tiny: Callable[..., Any], folder: Path) -> None:
    assert tiny(MASK, folder).train.stop_below_median == 0
    assert stops(folder, 0.0, min_runs=0) is None


def test_only_evaluations_before_the_end_are_compared(folder: Path) -> None:
    for done in (1, 3):
        put_run(folder.parent, f"at{done}", (done, 50.0))
        assert stops(folder, 0.0, done=done) is None, "the run is not evaluated then"
    assert stops(folder, 0.0, done=4) is None, "it ends anyway"
    assert stops(folder, 0.0, period=0) is None


def test_run_without_a_score_continues(folder: Path) -> None:
    hook = StopBelowMedian(Record(scores=[(1, 0.0)]), folder, 1, 2)
    hook.trainer = SimpleNamespace(iter=1, max_iter=4)
    hook.after_step()


@given(st.lists(st.floats(0, 100), max_size=6), st.floats(0, 100), st.integers(1, 4))
def test_median_rule(others: list[float], score: float, min_runs: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("d2timm.engine.hooks.finished_scores", lambda sweep, iterations: others)
        stopped = stops(Path("sweep/run"), score, min_runs=min_runs) is not None
    assert stopped == (len(others) >= min_runs and score < statistics.median(others))


def test_resumed_run_without_improvement_stops(
    tiny: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Evaluations of both parts are counted."""
    scores = iter([7.0, 5.0, 7.0, 3.0, 9.0])
    monkeypatch.setattr(
        "d2timm.engine.validation.evaluate", lambda cfg, model, record: ({"bbox": {"AP": next(scores)}}, None)
    )
    patient = ["train.early_stop=3", "train.eval_period=1", "train.max_iter=9"]
    folder = tmp_path / "run"
    run(tiny(MASK, folder, *patient, "train.pause_at=2"))
    assert read_record(folder).stopped is None
    run(tiny(MASK, folder, *patient), resume=True)
    result = read_record(folder)
    assert (result.status, result.error, result.iterations) == ("done", None, 4)
    assert result.stopped is not None
    assert result.stopped.startswith("stopped at iteration 4 of 9: ")
    for fact in ("bbox/AP", "7.00", "iteration 1", "3 evaluations"):
        assert fact in result.stopped
    assert (folder / "predictions.png").is_file()


def test_worst_run_of_a_sweep_stops(tiny: Callable[..., Any], tmp_path: Path) -> None:
    put_run(tmp_path, "best", (2, 100.0))
    folder = tmp_path / "run"
    run(tiny(MASK, folder, "train.stop_below_median=1"))
    result = read_record(folder)
    assert (result.status, result.error, result.iterations) == ("done", None, 2)
    assert result.stopped is not None
    assert result.stopped.startswith("stopped at iteration 2 of 4: bbox/AP ")
    assert "100.00" in result.stopped
    assert [iterations for iterations, _ in result.scores] == [2]
    assert not (folder / "model_final.pth").exists()
    assert (folder / "last_checkpoint").read_text() == "model_0000001.pth"
    assert (folder / "predictions.png").is_file()
    losses = series(folder, "total_loss")
    assert max(losses) == 1
    assert all(math.isfinite(loss) for loss in losses.values())
    log = (folder / "log.txt").read_text()
    assert result.stopped in log
    assert "Exception during training" not in log
    assert not is_held(folder)
