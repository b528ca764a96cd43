"""Sweeps as users start them: every launcher, kills and preemptions, chosen values, rounds."""

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
from helpers.commands import SCRIPTS

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

    @contextmanager
    def started(self, *more: str) -> Iterator[subprocess.Popen[bytes]]:
        """The command in a process group of its own, of which nothing is left behind."""
        arguments = [*self.arguments, f"hydra.sweep.dir={self.folder}", *more]
        with (self.folder.parent / f"{self.folder.name}.output").open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, str(SCRIPTS / "hydra_train.py"), *arguments],
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
        """Exit code and output."""
        with self.started(*more) as process:
            return self.end(process)

    def end(self, process: subprocess.Popen[bytes]) -> tuple[int, str]:
        """Exit code and output of a command that has been started."""
        code = process.wait(timeout=200)
        return code, (self.folder.parent / f"{self.folder.name}.output").read_text()

    def of(self, model: str) -> Path:
        return self.folder / f"model_name={model}"

    def record(self, model: str) -> Record:
        record = Record.read(self.of(model))
        assert record is not None, f"{model} has no record"
        return record

    def written(self) -> dict[Path, int]:
        """When the files of all runs were written last."""
        files = [f for run in self.folder.iterdir() if run.is_dir() for f in run.rglob("*") if f.is_file()]
        return {file: file.stat().st_mtime_ns for file in files if ".submitit" not in file.parts}

    def starts(self, model: str) -> list[int]:
        """The iterations from which a run was trained, one for each time that it was started."""
        log = (self.of(model) / "log.txt").read_text()
        return [int(number) for number in re.findall(r"Starting training from iteration (\d+)", log)]

    def wait_for_checkpoint(self, models: Collection[str], process: subprocess.Popen[bytes]) -> str:
        """The first of these models that is being trained and has something to go on from."""
        end = time.monotonic() + 100
        while True:
            for model in models:
                if (self.of(model) / "last_checkpoint").is_file() and self.record(model).status == "running":
                    return model
            assert process.poll() is None, self.end(process)
            assert time.monotonic() < end
            time.sleep(0.005)

    def statuses(self) -> dict[str, str]:
        """Those in the leaderboard."""
        with (self.folder / "leaderboard.csv").open(newline="") as file:
            return {row["name"].removeprefix("model_name="): row["status"] for row in csv.DictReader(file)}


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory, small_coco: CocoFiles) -> Callable[..., Sweep]:
    """A sweep that is still to be started: ``sweep(name, *arguments)``."""
    root = tmp_path_factory.mktemp("sweeps")

    def make(name: str, *arguments: str) -> Sweep:
        return Sweep(root / name, ["-m", *SETTINGS, *small_coco.overrides, *arguments])

    return make


def models(*names: str) -> str:
    return f"{NAME}={','.join(names)}"


@pytest.fixture(scope="module")
def basic(sweep: Callable[..., Sweep]) -> tuple[Sweep, int, str]:
    """Three models, a misspelt one and one that cannot be had, one after the other: sweep, code, output."""
    started = sweep("basic", models(MODELS[0], "test_resnett", "hf-hub:timm/none", *MODELS[1:]))
    return started, *started.run()


MISSPELT, UNREACHABLE = "test_resnett", "hf-hub_timm_none"


def unreachable(basic: Sweep) -> str:
    """The model whose folder cannot be named as it is."""
    (folder,) = basic.folder.glob(f"model_name={UNREACHABLE}-??????")
    return folder.name.removeprefix("model_name=")


def test_failed_runs_are_told_and_the_others_are_done(basic: tuple[Sweep, int, str]) -> None:
    of, code, told = basic
    assert code == 1, told
    for model in MODELS:
        record = of.record(model)
        assert (record.status, record.error, record.iterations) == ("done", None, ITERATIONS)
        assert of.starts(model) == [0]
    assert "did you mean test_resnet" in str(of.record(MISSPELT).error)
    gone = unreachable(of)
    assert of.record(gone).status == "failed"
    assert of.record(gone).model_name == "hf-hub:timm/none"
    assert of.statuses() == {**dict.fromkeys(MODELS, "done"), MISSPELT: "failed", gone: "failed"}
    assert {"leaderboard.csv", "leaderboard.json", "leaderboard.md"} <= {f.name for f in of.folder.iterdir()}
    assert "5 runs: 3 done, 2 failed" in told
    assert f"--repeat-failed hydra.sweep.dir={of.folder}" in told
    assert "Traceback" not in told


def test_started_again_only_what_is_asked_for_is_repeated(basic: tuple[Sweep, int, str]) -> None:
    of, *_ = basic
    before = of.written()
    code, told = of.run()
    assert code == 1
    assert of.written() == before
    assert told.count("done before") == 3
    assert told.count("failed before") == 2

    gone = unreachable(of)
    code, told = of.run("--repeat-failed")
    assert code == 1
    changed = {file for file, when in of.written().items() if before.get(file) != when}
    assert {file.relative_to(of.folder).parts[0] for file in changed} == {
        f"model_name={name}{aside}" for name in (MISSPELT, gone) for aside in ("", "~1")
    }
    assert "5 runs: 3 done, 2 failed" in told


def test_sweep_folder_of_other_settings_is_refused(basic: tuple[Sweep, int, str]) -> None:
    of, *_ = basic
    before = of.written()
    code, told = of.run("optimizer.lr=0.5")
    assert code == 2
    assert re.search(
        r"^error: .* holds a run of other settings, such as optimizer\.lr=.* \(here 0\.5\)", told, re.M
    )
    assert of.written() == before


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return dict(torch.load(folder / "model_final.pth", weights_only=True)["model"])


def assert_same(mine: Sweep, other: Sweep, model: str) -> None:
    """Bit for bit the same run."""
    a, b = weights(mine.of(model)), weights(other.of(model))
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert mine.record(model).metrics == other.record(model).metrics
    assert mine.record(model).scores == other.record(model).scores


def assert_resumed(of: Sweep, model: str) -> None:
    first, *later = of.starts(model)
    assert first == 0
    assert len(later) == 1
    assert PERIOD <= later[0] < ITERATIONS
    assert later[0] % PERIOD == 0
    record = of.record(model)
    assert (record.status, record.error, record.iterations) == ("done", None, ITERATIONS)


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_joblib_loses_a_run_and_a_worker(sweep: Callable[..., Sweep], basic: tuple[Sweep, int, str]) -> None:
    """Two at once; kill -9 of a run, then of another's worker; the sweep goes on, later only those two."""
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    of = sweep("joblib", models(*MODELS), "hydra/launcher=joblib")
    with of.started() as process:
        killed = of.wait_for_checkpoint(MODELS, process)
        os.kill(of.record(killed).pid, signal.SIGKILL)
        orphan = of.wait_for_checkpoint(set(MODELS) - {killed}, process)
        os.kill(parent(of.record(orphan).pid), signal.SIGKILL)
        code, told = of.end(process)
    (whole,) = set(MODELS) - {killed, orphan}
    assert code == 1, told
    assert of.statuses() == {killed: "killed", orphan: "killed", whole: "done"}
    assert of.record(killed).error == "killed by SIGKILL"
    assert "A worker process was killed; the sweep goes on without its run." in told
    assert "is started again with" in told
    assert of.starts(killed) == of.starts(orphan) == [0]
    assert not any(is_held(of.of(model)) for model in MODELS)
    if of.starts(whole)[-1] == 0:  # joblib ends all that go on beside a worker that dies
        assert_same(of, basic[0], whole)

    before = of.written()
    code, told = of.run()
    assert code == 0, told
    for model in (killed, orphan):
        assert_resumed(of, model)
    changed = {file for file, when in of.written().items() if before.get(file) != when}
    assert not any(file.is_relative_to(of.of(whole)) for file in changed)
    assert of.statuses() == dict.fromkeys(MODELS, "done")


def test_submitit_preempts_a_run(sweep: Callable[..., Sweep], basic: tuple[Sweep, int, str]) -> None:
    """A job that gets the signal of preemption is queued again, and goes on from its checkpoint."""
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    submitit = pytest.importorskip("submitit")
    both = MODELS[:2]
    of = sweep("submitit", models(*both), "hydra/launcher=submitit_local")
    with of.started() as process:
        preempted = of.wait_for_checkpoint(both, process)
        os.kill(parent(of.record(preempted).pid), submitit.JobEnvironment._usr_sig())
        code, told = of.end(process)
    assert code == 0, told
    assert_resumed(of, preempted)
    (whole,) = set(both) - {preempted}
    assert of.starts(whole) == [0]
    assert_same(of, basic[0], whole)
    assert of.statuses() == dict.fromkeys(both, "done")


def test_ray(sweep: Callable[..., Sweep], basic: tuple[Sweep, int, str]) -> None:
    pytest.importorskip("hydra_plugins.hydra_ray_launcher")
    both = MODELS[:2]
    of = sweep("ray", models(*both), "hydra/launcher=ray", "+hydra.launcher.ray.init.num_cpus=2")
    code, told = of.run()
    assert code == 0, told
    assert of.statuses() == dict.fromkeys(both, "done")
    for model in both:
        assert_same(of, basic[0], model)


def test_optuna_replays_its_study_without_training(sweep: Callable[..., Sweep]) -> None:
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    few = ["train.max_iter=4", "train.eval_period=0"]
    study = ["hydra/sweeper=optuna", "hydra.sweeper.n_trials=4", "optimizer.lr=tag(log,interval(1e-4,1e-2))"]
    of = sweep("optuna", *few, *study, f"{NAME}=test_resnet")
    code, told = of.run()
    assert code == 0, told
    folders = {run.name for run in of.folder.iterdir() if run.is_dir()}
    assert len(folders) == 4
    rates = {float(name.removeprefix("lr=")) for name in folders}
    assert len(rates) == 4
    assert all(1e-4 <= rate <= 1e-2 for rate in rates)
    before = of.written()
    code, told = of.run()
    assert code == 0, told
    assert told.count("done before") == 4
    assert of.written() == before


def test_screening_trains_the_better_half_longer(sweep: Callable[..., Sweep]) -> None:
    """Four backbones until iteration 6, two until 12, one until 24: 48 in all."""
    pytest.importorskip("optuna")
    candidates = [*MODELS, "test_byobnet"]
    arguments = ["+sweep=screen", f"backbones={','.join(candidates)}", "budget=50"]
    of = sweep("screen", *arguments)
    of.arguments = [a for a in of.arguments if not a.startswith(("train.max_iter=", "-m"))]
    code, told = of.run()
    assert code == 0, told
    rounds = re.findall(r"round (\d) of 3: (\d) backbones until iteration (\d+)", told)
    assert rounds == [("1", "4", "6"), ("2", "2", "12"), ("3", "1", "24")]
    folders = {name: of.folder / f"backbone={name}" for name in candidates}
    records = {name: Record.read(folder) for name, folder in folders.items()}
    left, budget = set(candidates), 0
    for end, count in ((6, 4), (12, 2), (24, 1)):
        came = {name for name, record in records.items() if record and record.iterations >= end}
        assert len(came) == count
        out = left - came
        before = end // 2
        scores = {name: dict(record.scores).get(before) for name, record in records.items() if record}
        assert not out or min(scores[n] for n in came) >= max(scores[n] for n in out)
        left = came
    for name, record in records.items():
        assert record is not None
        assert (record.status, record.error, record.max_iter) == ("done", None, 24)
        log = (folders[name] / "log.txt").read_text()
        starts = [int(number) for number in re.findall(r"Starting training from iteration (\d+)", log)]
        assert starts == [start for start in (0, 6, 12) if start < record.iterations]
        budget += record.iterations
    assert budget == 48
    before = of.written()
    code, told = of.run()
    assert code == 0, told
    assert of.written() == before
