"""Sweeps as users start them: every launcher, killed and preempted runs, Optuna, screening."""

from __future__ import annotations

import csv
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from conftest import TINY, CocoFiles

from d2timm.runs.record import Record, is_held

pytestmark = pytest.mark.slow

NAME = "model.backbone.bottom_up.model_name"
MODELS = ("test_resnet", "test_efficientnet", "test_vit")
ITERATIONS, PERIOD = 30, 5
SETTINGS = [
    *(override for override in TINY if not override.startswith(NAME)),
    "roi_heads=box",
    "train.threads=1",
    f"train.max_iter={ITERATIONS}",
    f"train.checkpointer.period={PERIOD}",
    "train.eval_period=15",
]


@dataclass
class Sweep:
    """A sweep folder and the command that fills it."""

    folder: Path
    arguments: list[str]
    label: str = ""  # of its output

    @property
    def output(self) -> Path:
        return self.folder.parent / f"{self.folder.name}{self.label}.output"

    @contextmanager
    def running(self, *more: str) -> Iterator[subprocess.Popen[bytes]]:
        """Start the command in a new process group, which is killed at the end."""
        arguments = [*self.arguments, f"hydra.sweep.dir={self.folder}", *more]
        with self.output.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "d2timm", "sweep", *arguments],
                cwd=self.folder.parent,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def run(self, *more: str) -> tuple[int, str]:
        """Run the command; returns exit code and output."""
        with self.running(*more) as process:
            return self.end(process)

    def end(self, process: subprocess.Popen[bytes]) -> tuple[int, str]:
        """Wait for a started command; returns exit code and output."""
        code = process.wait(timeout=200)
        return code, self.output.read_text()

    def run_folder(self, model: str) -> Path:
        return self.folder / f"model_name={model}"

    def record(self, model: str) -> Record:
        record = Record.read(self.run_folder(model))
        assert record is not None, f"{model} has no record"
        return record

    def written(self) -> dict[Path, int]:
        """The files of all runs and when they were last written."""
        files = [f for run in self.folder.iterdir() if run.is_dir() for f in run.rglob("*") if f.is_file()]
        return {file: file.stat().st_mtime_ns for file in files if ".submitit" not in file.parts}

    def starts(self, model: str) -> list[int]:
        """The iterations at which training started, one for each start."""
        log = (self.run_folder(model) / "log.txt").read_text()
        return [int(number) for number in re.findall(r"Starting training from iteration (\d+)", log)]

    def wait_for_checkpoint(self, models: Collection[str], process: subprocess.Popen[bytes]) -> str:
        """Wait until one of these models is being trained and has a checkpoint; returns it."""
        end = time.monotonic() + 100
        while True:
            for model in models:
                has_checkpoint = (self.run_folder(model) / "last_checkpoint").is_file()
                if has_checkpoint and self.record(model).status == "running":
                    return model
            assert process.poll() is None, self.end(process)
            assert time.monotonic() < end
            time.sleep(0.005)

    def statuses(self) -> dict[str, str]:
        """Model -> status in the leaderboard."""
        with (self.folder / "leaderboard.csv").open(newline="") as file:
            return {row["name"].removeprefix("model_name="): row["status"] for row in csv.DictReader(file)}


@pytest.fixture(scope="module")
def make_sweep(tmp_path_factory: pytest.TempPathFactory, small_coco: CocoFiles) -> Callable[..., Sweep]:
    """A sweep that has yet to be run: ``make_sweep(name, *arguments)``."""
    root = tmp_path_factory.mktemp("sweeps")

    def make(name: str, *arguments: str) -> Sweep:
        return Sweep(root / name, ["-m", *SETTINGS, *small_coco.overrides, *arguments])

    return make


def models(*names: str) -> str:
    return f"{NAME}={','.join(names)}"


@pytest.fixture(scope="module")
def basic(make_sweep: Callable[..., Sweep]) -> tuple[Sweep, int, str]:
    """Three models, a misspelt one and an unreachable one, one by one: sweep, exit code, output."""
    sweep = make_sweep("basic", models(MODELS[0], "test_resnett", "hf-hub:timm/none", *MODELS[1:]))
    return sweep, *sweep.run()


MISSPELT, UNREACHABLE = "test_resnett", "hf-hub_timm_none"


def unreachable(basic: Sweep) -> str:
    """The name of the folder of the model whose name is not safe for a folder."""
    (folder,) = basic.folder.glob(f"model_name={UNREACHABLE}-??????")
    return folder.name.removeprefix("model_name=")


def test_failed_runs_are_reported_and_the_others_are_done(basic: tuple[Sweep, int, str]) -> None:
    done, code, output = basic
    assert code == 1, output
    for model in MODELS:
        record = done.record(model)
        assert (record.status, record.error, record.iterations) == ("done", None, ITERATIONS)
        assert done.starts(model) == [0]
    assert "did you mean test_resnet" in str(done.record(MISSPELT).error)
    missing = unreachable(done)
    assert done.record(missing).status == "failed"
    assert done.record(missing).model_name == "hf-hub:timm/none"
    assert done.statuses() == {**dict.fromkeys(MODELS, "done"), MISSPELT: "failed", missing: "failed"}
    files = {file.name for file in done.folder.iterdir()}
    assert {"leaderboard.csv", "leaderboard.json", "leaderboard.md", "pareto.png"} <= files
    assert "5 runs: 3 done, 2 failed" in output
    assert f"--repeat-failed hydra.sweep.dir={done.folder}" in output
    assert "Traceback" not in output


def test_sweep_that_is_started_again_repeats_runs_only_on_request(basic: tuple[Sweep, int, str]) -> None:
    done, *_ = basic
    before = done.written()
    code, output = done.run()
    assert code == 1
    assert done.written() == before
    assert output.count("done before") == 3
    assert output.count("failed before") == 2

    missing = unreachable(done)
    code, output = done.run("--repeat-failed")
    assert code == 1
    changed = {file for file, time in done.written().items() if before.get(file) != time}
    assert {file.relative_to(done.folder).parts[0] for file in changed} == {
        f"model_name={name}{suffix}" for name in (MISSPELT, missing) for suffix in ("", "~1")
    }
    assert "5 runs: 3 done, 2 failed" in output


def test_sweep_folder_with_other_settings_is_an_error(basic: tuple[Sweep, int, str]) -> None:
    done, *_ = basic
    before = done.written()
    code, output = done.run("optimizer.lr=0.5")
    assert code == 2
    assert re.search(r"^error: .* optimizer\.lr=.*\b0\.5\b", output, re.MULTILINE)
    assert done.written() == before


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return dict(torch.load(folder / "model_final.pth", weights_only=True)["model"])


def assert_same(one: Sweep, other: Sweep, model: str) -> None:
    """Assert that two runs are equal bit for bit."""
    a, b = weights(one.run_folder(model)), weights(other.run_folder(model))
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert one.record(model).metrics == other.record(model).metrics
    assert one.record(model).scores == other.record(model).scores


def assert_resumed(sweep: Sweep, model: str) -> None:
    first, *later = sweep.starts(model)
    assert first == 0
    assert len(later) == 1
    assert PERIOD <= later[0] < ITERATIONS
    record = sweep.record(model)
    assert (record.status, record.error, record.iterations) == ("done", None, ITERATIONS)


@pytest.mark.sampled("sweeps")
def test_two_commands_share_the_runs_of_a_sweep(
    make_sweep: Callable[..., Sweep], basic: tuple[Sweep, int, str]
) -> None:
    """Neither trains a run that the other one trains, and that is no failure."""
    sweep = make_sweep("shared", models(*MODELS))
    other = Sweep(sweep.folder, sweep.arguments, label=".other")
    with sweep.running() as one:
        sweep.wait_for_checkpoint(MODELS, one)
        with other.running() as two:
            ends = [sweep.end(one), other.end(two)]
    assert [code for code, _ in ends] == [0, 0], ends
    for model in MODELS:
        assert sweep.starts(model) == [0]
        assert_same(sweep, basic[0], model)
    assert sweep.run()[0] == 0
    assert sweep.statuses() == dict.fromkeys(MODELS, "done")


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_joblib_survives_a_killed_run_and_a_killed_worker(
    make_sweep: Callable[..., Sweep], basic: tuple[Sweep, int, str]
) -> None:
    """Kill a run, then the worker of another; the sweep ends, and a second start continues only these two."""
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    sweep = make_sweep("joblib", models(*MODELS), "hydra/launcher=joblib")
    with sweep.running() as process:
        killed = sweep.wait_for_checkpoint(MODELS, process)
        os.kill(sweep.record(killed).pid, signal.SIGKILL)
        orphan = sweep.wait_for_checkpoint(set(MODELS) - {killed}, process)
        os.kill(parent(sweep.record(orphan).pid), signal.SIGKILL)
        code, output = sweep.end(process)
    (completed,) = set(MODELS) - {killed, orphan}
    assert code == 1, output
    assert sweep.statuses() == {killed: "killed", orphan: "interrupted", completed: "done"}
    assert sweep.record(killed).error == "killed by SIGKILL"
    assert "A worker process was killed" in output
    assert "To continue interrupted runs" in output
    assert sweep.starts(killed) == sweep.starts(orphan) == [0]
    assert not any(is_held(sweep.run_folder(model)) for model in MODELS)
    if sweep.starts(completed)[-1] == 0:  # joblib kills all workers when one dies
        assert_same(sweep, basic[0], completed)

    before = sweep.written()
    code, output = sweep.run()
    assert code == 0, output
    for model in (killed, orphan):
        assert_resumed(sweep, model)
        assert_same(sweep, basic[0], model)
    changed = {file for file, time in sweep.written().items() if before.get(file) != time}
    assert not any(file.is_relative_to(sweep.run_folder(completed)) for file in changed)
    assert sweep.statuses() == dict.fromkeys(MODELS, "done")


@pytest.mark.sampled("sweeps")
def test_run_that_submitit_preempts_continues(
    make_sweep: Callable[..., Sweep], basic: tuple[Sweep, int, str]
) -> None:
    """A job that receives the signal of a preemption is queued again and continues from its checkpoint."""
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    submitit = pytest.importorskip("submitit")
    both = MODELS[:2]
    sweep = make_sweep("submitit", models(*both), "hydra/launcher=submitit_local")
    with sweep.running() as process:
        preempted = sweep.wait_for_checkpoint(both, process)
        os.kill(parent(sweep.record(preempted).pid), submitit.JobEnvironment._usr_sig())
        code, output = sweep.end(process)
    assert code == 0, output
    assert_resumed(sweep, preempted)
    assert_same(sweep, basic[0], preempted)
    (completed,) = set(both) - {preempted}
    assert sweep.starts(completed) == [0]
    assert_same(sweep, basic[0], completed)
    assert sweep.statuses() == dict.fromkeys(both, "done")


@pytest.mark.sampled("sweeps")
def test_ray_gives_the_same_runs(make_sweep: Callable[..., Sweep], basic: tuple[Sweep, int, str]) -> None:
    pytest.importorskip("hydra_plugins.hydra_ray_launcher")
    both = MODELS[:2]
    sweep = make_sweep("ray", models(*both), "hydra/launcher=ray", "+hydra.launcher.ray.init.num_cpus=2")
    code, output = sweep.run()
    assert code == 0, output
    assert sweep.statuses() == dict.fromkeys(both, "done")
    for model in both:
        assert_same(sweep, basic[0], model)


@pytest.mark.sampled("sweeps")
def test_optuna_repeats_its_study_without_training(make_sweep: Callable[..., Sweep]) -> None:
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    few = ["train.max_iter=4", "train.eval_period=0"]
    study = ["hydra/sweeper=optuna", "hydra.sweeper.n_trials=4", "optimizer.lr=tag(log,interval(1e-4,1e-2))"]
    sweep = make_sweep("optuna", *few, *study, f"{NAME}=test_resnet")
    code, output = sweep.run()
    assert code == 0, output
    folders = {run.name for run in sweep.folder.iterdir() if run.is_dir()}
    assert len(folders) == 4
    rates = {float(name.removeprefix("lr=")) for name in folders}
    assert len(rates) == 4
    assert all(1e-4 <= rate <= 1e-2 for rate in rates)
    before = sweep.written()
    code, output = sweep.run()
    assert code == 0, output
    assert output.count("done before") == 4
    assert sweep.written() == before


@pytest.mark.sampled("sweeps")
def test_screening_trains_the_better_half_longer(make_sweep: Callable[..., Sweep]) -> None:
    """Four backbones until iteration 6, two until 12, one until 24, and cool-downs: 56 iterations in all."""
    candidates = [*MODELS, "test_byobnet"]
    arguments = ["+sweep=screen", f"backbones={','.join(candidates)}", "budget=65"]
    sweep = make_sweep("screen", *arguments)
    sweep.arguments = [a for a in sweep.arguments if not a.startswith(("train.max_iter=", "-m"))]
    code, output = sweep.run()
    assert code == 0, output
    rounds = re.findall(r"round (\d) of 3: (\d) backbones until (\d+) iterations", output)
    assert rounds == [("1", "4", "6"), ("2", "2", "12"), ("3", "1", "24")]
    folders = {name: sweep.folder / f"backbone={name}" for name in candidates}
    records = {name: Record.read(folder) for name, folder in folders.items()}
    remaining, total = set(candidates), 0
    for end, count in ((6, 4), (12, 2), (24, 1)):
        reached = {name for name, record in records.items() if record and record.iterations >= end}
        assert len(reached) == count
        dropped = remaining - reached
        scores = {name: dict(record.scores).get(end // 2) for name, record in records.items() if record}
        assert not dropped or min(scores[n] for n in reached) >= max(scores[n] for n in dropped)
        remaining = reached
    for name, record in records.items():
        assert record is not None
        assert (record.status, record.error, record.max_iter) == ("done", None, 24)
        log = (folders[name] / "log.txt").read_text()
        starts = [int(number) for number in re.findall(r"Starting training from iteration (\d+)", log)]
        assert starts == [start for start in (0, 6, 12) if start < record.iterations]
        total += record.iterations
    assert total == 48
    before = sweep.written()
    code, output = sweep.run()
    assert code == 0, output
    assert sweep.written() == before
