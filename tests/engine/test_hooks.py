"""Hooks: a record kept up to date, a schedule trained in parts, runs that end before their end."""

from __future__ import annotations

import json
import math
import shutil
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
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
from d2timm.engine.run import run
from d2timm.engine.trainer import Trainer
from d2timm.runs.checkpoint import AtomicCheckpointer
from d2timm.runs.record import Record, is_held

MASK = "mask_rcnn_timm.py"


def record(folder: Path) -> Record:
    found = Record.read(folder)
    assert found is not None
    return found


def series(folder: Path, key: str) -> dict[int, float]:
    """Iteration -> value, of metrics.json; each iteration is there once."""
    lines = [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]
    values = [(line["iteration"], line[key]) for line in lines if key in line]
    assert len(dict(values)) == len(values), "trained twice"
    return dict(values)


def steps(file: Path) -> set[int]:
    """How many steps the optimizer has made, for each parameter."""
    state = torch.load(file, weights_only=True)["trainer"]["optimizer"]["state"]
    return {int(one["step"]) for one in state.values()}


# Progress


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


# A schedule in parts


@pytest.fixture(scope="module")
def whole(tiny: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four iterations in one go; not to be changed."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    run(tiny(MASK, folder))
    return folder


@pytest.fixture(scope="module")
def paused(tiny: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two of four iterations; not to be changed."""
    folder = tmp_path_factory.mktemp("paused") / "run"
    run(tiny(MASK, folder, "train.pause_at=2"))
    return folder


def test_paused_run_is_done_for_the_moment(paused: Path, whole: Path) -> None:
    result = record(paused)
    assert (result.status, result.iterations, result.max_iter) == ("done", 2, 4)
    assert (result.error, result.stopped) == (None, None)
    assert [iterations for iterations, _ in result.scores] == [2]
    assert result.score is not None
    assert (paused / "predictions.png").is_file()
    assert (paused / "last_checkpoint").read_text() == "model_final.pth"
    assert steps(paused / "model_0000001.pth") == {2}


def test_until_the_pause_it_is_the_run_in_one_go(paused: Path, whole: Path) -> None:
    first, rates = series(whole, "total_loss"), series(whole, "lr")
    losses = series(paused, "total_loss")
    assert losses
    assert losses.items() <= first.items()
    assert series(paused, "lr").items() <= rates.items()
    assert record(paused).scores == record(whole).scores[:1]
    a, b = (
        torch.load(folder / "model_0000001.pth", weights_only=True)["model"] for folder in (paused, whole)
    )
    assert all(torch.equal(a[name], b[name]) for name in b)


def test_resumed_run_has_the_schedule_of_one_in_one_go(
    tiny: Callable[..., Any], paused: Path, whole: Path, tmp_path: Path
) -> None:
    """Not its weights: a resumed run draws its images anew, as detectron2's does."""
    folder = tmp_path / "run"
    shutil.copytree(paused, folder)
    seconds = record(folder).train_seconds
    run(tiny(MASK, folder), resume=True)
    result = record(folder)
    assert (result.status, result.iterations, result.max_iter) == ("done", 4, 4)
    assert [iterations for iterations, _ in result.scores] == [2, 4]
    assert result.scores[0] == record(paused).scores[0]
    assert result.train_seconds > seconds
    rates = series(folder, "lr")
    assert rates == series(whole, "lr")
    assert len(set(rates.values())) > 1, "a schedule that moves"
    assert steps(folder / "model_final.pth") == steps(whole / "model_final.pth") == {4}


def test_resuming_until_the_same_pause_only_evaluates(
    tiny: Callable[..., Any], paused: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(paused, folder)
    before = {file.name: file.stat().st_mtime_ns for file in folder.glob("*.pth")}
    run(tiny(MASK, folder, "train.pause_at=2"), resume=True)
    assert {file.name: file.stat().st_mtime_ns for file in folder.glob("*.pth")} == before
    assert record(folder).scores == record(paused).scores
    assert record(folder).iterations == 2


def test_pause_past_the_end_is_no_pause(tiny: Callable[..., Any], tmp_path: Path) -> None:
    run(tiny(MASK, tmp_path, "train.pause_at=9", "train.max_iter=2", "train.eval_period=0"))
    assert (record(tmp_path).iterations, record(tmp_path).status) == (2, "done")
    assert (tmp_path / "model_final.pth").is_file()


# Averaged weights


class Toy(nn.Module):
    """Weights, statistics and a count."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"loss": self.layers(x).square().mean()}


class Average(SimpleNamespace):
    """A training of a toy, averaged, with what is saved of it."""

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
def test_average_is_that_of_the_weights_after_each_step(warmup: bool, tmp_path: Path) -> None:
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


def test_averaging_changes_nothing_of_the_training(tmp_path: Path) -> None:
    averaged, plain = Average(tmp_path, 0.9, True), Average(tmp_path, 0.9, True)
    plain.trainer._hooks.clear()
    for one in (averaged, plain):
        one.trainer.train(0, 6)
    assert all(map(torch.equal, averaged.model.state_dict().values(), plain.model.state_dict().values()))


@pytest.mark.parametrize("warmup", [True, False])
def test_average_of_a_resumed_run_is_that_of_one_in_one_go(warmup: bool, tmp_path: Path) -> None:
    whole, first = Average(tmp_path, 0.9, warmup), Average(tmp_path, 0.9, warmup)
    whole.trainer.train(0, 7)
    first.trainer.train(0, 3)
    first.trainer.iter = 2  # as after its last step
    first.saved.save("model_0000002")
    second = Average(tmp_path, 0.9, warmup, start=3)
    second.saved.resume_or_load("", resume=True)
    second.trainer.train(second.trainer.iter + 1, 7)
    assert all(map(torch.equal, second.state().values(), whole.state().values()))
    assert second.state().keys() == whole.state().keys()


# Ends that evaluations give


def ends_early(scores: list[float], patience: int) -> str | None:
    """What the hook makes of a run with these scores, one every two iterations."""
    done = 2 * len(scores)
    told = [(2 * n, score) for n, score in enumerate(scores, start=1)]
    hook = StopEarly(Record(scores=told, max_iter=100), patience, 2)
    hook.trainer = SimpleNamespace(iter=done - 1, max_iter=100)
    try:
        hook.after_step()
    except Stopped as stopped:
        return str(stopped)
    return None


def test_run_that_becomes_no_better_stops_and_says_why() -> None:
    assert ends_early([10.0, 30.0, 20.0], 2) is None
    assert ends_early([10.0, 30.0, 20.0, 30.0], 2) == (
        "stopped at iteration 8 of 100: "
        "2 evaluations in a row were no better than bbox/AP 30.00 at iteration 4"
    )
    assert ends_early([10.0, 30.0, 20.0, 30.1], 2) is None
    assert ends_early([], 1) is None, "nothing could be scored"
    assert ends_early([30.0, 20.0, 10.0], 0) is None


@given(st.lists(st.integers(0, 5).map(float), min_size=1, max_size=8), st.integers(1, 4))
def test_patience(scores: list[float], patience: int) -> None:
    stopped = ends_early(scores, patience) is not None
    worse = [score <= max(scores[:n], default=-1.0) for n, score in enumerate(scores)]
    assert stopped == all(worse[-patience:])


# The median


def neighbour(sweep: Path, name: str, *scores: tuple[int, float], **more: Any) -> None:
    """The folder of another run, by default one that has finished its four iterations."""
    (sweep / name).mkdir(parents=True)
    told = {"status": "done", "iterations": 4, "max_iter": 4, "scores": list(scores), **more}
    Record(**told).write(sweep / name)


def stops(
    folder: Path, score: float, done: int = 2, least: int = 1, period: int = 2, end: int = 4
) -> str | None:
    """What the hook makes of a run that has just scored: the reason to stop it, if there is one."""
    mine = Record(iterations=done, max_iter=end, scores=[(done, score)])
    hook = StopBelowMedian(mine, folder, least, period)
    hook.trainer = SimpleNamespace(iter=done - 1, max_iter=end)
    try:
        hook.after_step()
    except Stopped as stopped:
        return str(stopped)
    return None


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run's own, in a sweep with three finished ones, whose median at iteration 2 is 20."""
    for name, score in (("a", 10.0), ("b", 20.0), ("c", 60.0)):
        neighbour(tmp_path, name, (2, score), (4, 90.0))
    return tmp_path / "mine"


def test_run_below_the_median_stops_and_says_why(folder: Path) -> None:
    assert stops(folder, 19.5) == (
        "stopped at iteration 2 of 4: bbox/AP 19.50 is below 20.00, the median of 3 finished runs"
    )


@pytest.mark.parametrize("score", [20.0, 20.5, 100.0])
def test_run_at_the_median_or_above_goes_on(score: float, folder: Path) -> None:
    assert stops(folder, score) is None


def test_median_of_an_even_number_lies_between(folder: Path) -> None:
    neighbour(folder.parent, "d", (2, 30.0))
    assert stops(folder, 24.9)
    assert stops(folder, 25.0) is None


@pytest.mark.parametrize(
    "more",
    [
        {"status": "running"},
        {"status": "failed"},
        {"iterations": 2},  # paused
        {"iterations": 2, "stopped": "stopped at iteration 2"},
        {"scores": [(1, 99.0), (3, 99.0), (4, 99.0)]},
    ],
    ids=["running", "failed", "paused", "stopped", "other iterations"],
)
def test_runs_that_have_not_finished_do_not_count(more: dict[str, Any], folder: Path) -> None:
    for name in "defgh":
        neighbour(folder.parent, name, **{"scores": [(2, 99.0)], **more})
    assert stops(folder, 20.0) is None
    assert sorted(finished_scores(folder.parent, 2)) == [10.0, 20.0, 60.0]


def test_fewer_finished_runs_than_asked_for_stop_nobody(folder: Path) -> None:
    assert stops(folder, 0.0, least=4) is None
    assert stops(folder, 0.0, least=3)


def test_off_by_default(tiny: Callable[..., Any], folder: Path) -> None:
    assert tiny(MASK, folder).train.stop_below_median == 0
    assert stops(folder, 0.0, least=0) is None


def test_only_evaluations_before_the_end_are_compared(folder: Path) -> None:
    for done in (1, 3):
        neighbour(folder.parent, f"at{done}", (done, 50.0))
        assert stops(folder, 0.0, done=done) is None, "no evaluation is due"
    assert stops(folder, 0.0, done=4) is None, "it has ended anyway"
    assert stops(folder, 0.0, period=0) is None


def test_run_without_a_score_goes_on(folder: Path) -> None:
    hook = StopBelowMedian(Record(scores=[(1, 0.0)]), folder, 1, 2)
    hook.trainer = SimpleNamespace(iter=1, max_iter=4)
    hook.after_step()


@given(st.lists(st.floats(0, 100), max_size=6), st.floats(0, 100), st.integers(1, 4))
def test_median_rule(theirs: list[float], mine: float, least: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("d2timm.engine.hooks.finished_scores", lambda sweep, iterations: theirs)
        stopped = stops(Path("sweep/mine"), mine, least=least) is not None
    assert stopped == (len(theirs) >= least and mine < statistics.median(theirs))


def test_run_that_becomes_no_better_stops_early_also_when_resumed(
    tiny: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its patience is counted over both parts."""
    scores = iter([7.0, 5.0, 7.0, 3.0, 9.0])
    monkeypatch.setattr("d2timm.engine.training.evaluate", lambda cfg, model: {"bbox": {"AP": next(scores)}})
    patient = ["train.early_stop=3", "train.eval_period=1", "train.max_iter=9"]
    folder = tmp_path / "run"
    run(tiny(MASK, folder, *patient, "train.pause_at=2"))
    assert record(folder).stopped is None
    run(tiny(MASK, folder, *patient), resume=True)
    result = record(folder)
    assert (result.status, result.error, result.iterations) == ("done", None, 4)
    assert result.stopped == (
        "stopped at iteration 4 of 9: 3 evaluations in a row were no better than bbox/AP 7.00 at iteration 1"
    )
    assert (folder / "predictions.png").is_file()


def test_worst_of_a_sweep_stops_for_good(tiny: Callable[..., Any], tmp_path: Path) -> None:
    neighbour(tmp_path, "best", (2, 100.0))
    folder = tmp_path / "run"
    run(tiny(MASK, folder, "train.stop_below_median=1"))
    result = record(folder)
    assert (result.status, result.error, result.iterations) == ("done", None, 2)
    assert result.stopped is not None
    assert result.stopped.startswith("stopped at iteration 2 of 4: bbox/AP ")
    assert result.stopped.endswith("is below 100.00, the median of 1 finished runs")
    assert [iterations for iterations, _ in result.scores] == [2]
    assert not (folder / "model_final.pth").exists()
    assert (folder / "last_checkpoint").read_text() == "model_0000001.pth"
    assert (folder / "predictions.png").is_file()
    losses = series(folder, "total_loss")
    assert max(losses) == 1
    assert all(math.isfinite(loss) for loss in losses.values())
    log = (folder / "log.txt").read_text()
    assert f"This run {result.stopped}." in log
    assert "Exception during training" not in log
    assert not is_held(folder)
