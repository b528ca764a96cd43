"""Several processes on the CPU over gloo, started by the command itself or by torchrun."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch
from detectron2.utils import comm
from torch import nn

from d2timm import ConfigError
from d2timm.engine.agreement import share_buffers
from d2timm.engine.launch import DEFAULT_THREADS, is_first_process, launch, num_processes, set_threads
from d2timm.engine.process import run
from d2timm.runs.record import Record
from d2timm.utils.signals import Interrupted, StopSignals

MASK = "mask_rcnn_timm.py"
TWO = Namespace(num_gpus=2, num_machines=1, machine_rank=0, dist_url="auto")
# a CNN, XCiT with its class token and late blocks, a plain ViT
MODELS = ["resnet10t", "xcit_nano_12_p16_224", "vit_tiny_patch16_224"]


def run_each(cfgs: list[Any]) -> None:
    """Run several configs in each process, because starting processes takes longer than the trainings."""
    for cfg in cfgs:
        run(cfg)


def assert_trained(folder: Path, iterations: int) -> None:
    record = Record.read(folder)
    assert record is not None
    assert (record.status, record.iterations, record.error) == ("done", iterations, None)
    lines = [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]
    losses = [line["total_loss"] for line in lines if "total_loss" in line]
    assert len(losses) >= iterations
    assert all(math.isfinite(loss) for loss in losses)
    assert set(record.metrics) == {"bbox", "segm"}
    assert (folder / "log.txt.rank1").is_file(), "a second process logged there"


def fail_in_second(error: Exception) -> None:
    """Fail in the second process, while the first one waits for it."""
    if comm.get_rank() == 1:
        raise error
    comm.synchronize()


@pytest.fixture
def on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that the test starts see no GPU."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


@pytest.mark.slow
def test_two_processes_train_every_kind_of_model_without_unused_parameters(
    tiny: Callable[..., Any], tmp_path: Path, on_cpu: None
) -> None:
    more = ["data.settings.custom.max_iter=2", "train.eval_period=0"]
    cfgs = [
        tiny(MASK, tmp_path / name, f"model.backbone.bottom_up.model_name={name}", *more) for name in MODELS
    ]
    for cfg in cfgs:
        assert cfg.train.ddp.find_unused_parameters is False
    launch(run_each, TWO, cfgs)
    for name in MODELS:
        assert_trained(tmp_path / name, 2)


@pytest.mark.slow
def test_torchrun(tiny_overrides: Callable[..., list[str]], tmp_path: Path, on_cpu: None) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command += ["-m", "d2timm", "train", "--config-file", MASK, *tiny_overrides(MASK, tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert_trained(tmp_path / "run", 4)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [ConfigError, RuntimeError])
def test_mistake_in_a_process_is_raised_without_its_traceback(kind: type[Exception], on_cpu: None) -> None:
    with pytest.raises(Exception, match=r"1\.jpg is broken") as caught:
        launch(fail_in_second, TWO, kind("1.jpg is broken"))
    assert isinstance(caught.value, ConfigError) == (kind is ConfigError)
    assert ("Traceback" in str(caught.value)) == (kind is not ConfigError)


def share_and_check(_: object) -> None:
    """Evaluate what the first process has, although each has seen other images."""
    model = nn.BatchNorm1d(2)
    model(torch.rand(4, 2) + comm.get_rank())
    own = model.running_mean.clone()
    share_buffers(model)
    means = comm.all_gather((own, model.running_mean))
    assert not torch.equal(means[0][0], means[1][0])
    assert all(torch.equal(shared, means[0][0]) for _, shared in means)


@pytest.mark.slow
def test_buffers_become_those_of_the_first_process(on_cpu: None) -> None:
    launch(share_and_check, TWO, None)


def wait_and_note(file: Path) -> None:
    """Note that the process has started, and wait for a signal."""
    with StopSignals().handled():
        file.with_suffix(f".{comm.get_rank()}").touch()
        time.sleep(60)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGUSR1])
def test_signal_to_the_launcher_stops_all_processes(
    number: signal.Signals, tmp_path: Path, on_cpu: None
) -> None:
    def send() -> None:
        while len(list(tmp_path.iterdir())) < 2:
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    sender = Thread(target=send)
    sender.start()
    with pytest.raises(Interrupted) as caught:
        launch(wait_and_note, TWO, tmp_path / "started")
    sender.join()
    assert caught.value.number == number
    assert multiprocessing.active_children() == []


def test_signal_before_the_processes_start(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(*args: Any, **kwargs: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("it goes on")

    monkeypatch.setattr("d2timm.engine.launch.launch_workers", start)
    with pytest.raises(Interrupted):
        launch(run_each, TWO, [])


def test_single_process_is_this_process() -> None:
    called: list[tuple[int, str]] = []
    one = Namespace(num_gpus=1, num_machines=1, machine_rank=0, dist_url="auto")
    launch(lambda *args: called.append(args), one, 1, "a")
    assert called == [(1, "a")]
    assert (num_processes(one), is_first_process(one)) == (1, True)


def test_processes_of_several_machines_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    second = Namespace(num_gpus=2, num_machines=3, machine_rank=1, dist_url="auto")
    assert (num_processes(second), is_first_process(second)) == (6, False)
    for name, value in {"TORCHELASTIC_RUN_ID": "none", "RANK": "0", "WORLD_SIZE": "4"}.items():
        monkeypatch.setenv(name, value)
    assert (num_processes(second), is_first_process(second)) == (4, True), "torchrun decides"


def test_number_of_threads_is_set() -> None:
    before = torch.get_num_threads()
    try:
        set_threads(before + 1)
        assert torch.get_num_threads() == before + 1
        set_threads(None)
        assert torch.get_num_threads() == DEFAULT_THREADS, "not the threads of an earlier run"
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(("processes", "expected"), [(1, DEFAULT_THREADS), (2, 3), (4, 1), (8, 1)])
def test_processes_on_the_cpu_divide_the_cores(
    processes: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(6)))
    monkeypatch.setattr("d2timm.engine.launch.comm.get_local_size", lambda: processes)
    set_threads(None)
    set_threads(5)
    assert threads == [expected, 5], "an explicit number is not divided"
