"""Slots of a sweep limit the runs at the same time, and give each a share of the machine."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from d2timm.sweep.slots import count_slots, share, slot

FORK = multiprocessing.get_context("fork")  # locks belong to a process, so threads would share one
THREADS = ("D2TIMM_CORES", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def take(folder: Path, count: int, taken: Any, seconds: float) -> None:
    """Hold a slot for a while; report its number and the times of taking and releasing it."""
    with slot(folder, count) as number:
        start = time.monotonic()
        taken.put((os.getpid(), number, start, None))
        time.sleep(seconds)
        end = time.monotonic()
    taken.put((os.getpid(), number, start, end))


@pytest.fixture
def processes() -> Iterator[list[Any]]:
    """The processes that a test starts; they are killed at its end."""
    started: list[Any] = []
    yield started
    for process in started:
        process.kill()
        process.join()


def start(processes: list[Any], *args: Any) -> Any:
    process = FORK.Process(target=take, args=args)
    process.start()
    processes.append(process)
    return process


@pytest.mark.parametrize("count", [1, 2, 3])
def test_no_more_processes_at_a_time_than_slots(count: int, tmp_path: Path, processes: list[Any]) -> None:
    taken = FORK.Queue()
    for _ in range(6):
        start(processes, tmp_path, count, taken, 0.05)
    reports = [taken.get(timeout=30) for _ in range(12)]
    times = [(begin, end, number) for _, number, begin, end in reports if end is not None]
    assert len(times) == 6
    for begin, _, _ in times:
        at_once = [number for other, end, number in times if other <= begin < end]
        assert len(at_once) <= count
        assert len(set(at_once)) == len(at_once), "no two processes hold the same slot"
        assert set(at_once) <= set(range(count))


def test_killed_process_releases_its_slot(tmp_path: Path, processes: list[Any]) -> None:
    taken = FORK.Queue()
    holder = start(processes, tmp_path, 1, taken, 60)
    assert taken.get(timeout=30)[0] == holder.pid
    waiting = start(processes, tmp_path, 1, taken, 0)
    time.sleep(0.5)
    assert taken.empty()
    os.kill(holder.pid, signal.SIGKILL)
    pid, number, _, _ = taken.get(timeout=30)
    assert (pid, number) == (waiting.pid, 0)


def test_slot_is_released_after_an_error(tmp_path: Path, processes: list[Any]) -> None:
    with pytest.raises(ValueError, match="run"), slot(tmp_path, 1):
        raise ValueError("run")
    taken = FORK.Queue()
    start(processes, tmp_path, 1, taken, 0)
    assert taken.get(timeout=30)[1] == 0


def test_each_sweep_has_its_own_slots(tmp_path: Path, processes: list[Any]) -> None:
    taken = FORK.Queue()
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        start(processes, tmp_path / name, 1, taken, 60)
    assert {taken.get(timeout=30)[0] for _ in range(2)} == {process.pid for process in processes}


@pytest.mark.parametrize(
    ("cores", "jobs", "expected"),
    [(8, 3, 3), (8, -1, 8), (8, -2, 7), (2, -1, 2), (2, -2, 1), (2, -9, 1), (1, -1, 1), (1, 4, 4)],
)
def test_slots_are_counted_as_in_joblib(
    cores: int, jobs: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("d2timm.sweep.slots.count_cores", lambda: cores)
    assert count_slots(jobs) == expected


@pytest.mark.parametrize(
    ("cores", "count", "threads"), [(8, 2, 4), (8, 3, 2), (2, 2, 1), (2, 5, 1), (1, 1, 1)]
)
def test_threads_are_divided(cores: int, count: int, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("d2timm.sweep.slots.count_cores", lambda: cores)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    for number in range(count):
        assert share(number, count) == dict.fromkeys(THREADS, str(threads))


@pytest.mark.parametrize(
    ("gpus", "shares"),
    [
        ("0", ["0"]),
        ("0,1", ["0", "1"]),
        ("4,5,6,7", ["4,6", "5,7"]),
        ("1,3,5", ["1,5", "3"]),
        ("0,1", ["0", "1", "0", "1", "0"]),
        ("GPU-a,GPU-b", ["GPU-a", "GPU-b"]),
    ],
)
def test_gpus_are_divided(gpus: str, shares: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus)
    assert [share(number, len(shares))["CUDA_VISIBLE_DEVICES"] for number in range(len(shares))] == shares


@given(gpus=st.integers(1, 16), count=st.integers(1, 16))
def test_every_gpu_is_used_and_every_run_has_one(gpus: int, count: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(gpus))))
        shares = [share(number, count)["CUDA_VISIBLE_DEVICES"].split(",") for number in range(count)]
    used = [gpu for own in shares for gpu in own]
    assert all(shares)
    if count <= gpus:
        assert sorted(used) == sorted(map(str, range(gpus))), "no GPU is shared"
    else:
        assert set(used) == set(map(str, range(gpus)))
        assert max(map(used.count, used)) <= -(-count // gpus), "GPUs are shared evenly"


def test_machine_without_a_gpu_sets_no_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(Path, "glob", lambda self, pattern: iter(()))
    assert "CUDA_VISIBLE_DEVICES" not in share(0, 2)
