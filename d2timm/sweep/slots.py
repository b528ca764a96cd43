"""Shares of a machine for runs that go on side by side."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ..utils.files import try_lock

__all__ = ["share", "slot", "slots"]


@contextmanager
def slot(folder: Path, count: int) -> Iterator[int]:
    """Take one of so many slots of a sweep; wait until there is one. A process that dies gives its own back.

    Args:
        folder: of the sweep.
        count: of runs that may go on side by side.

    Yields:
        The number of the slot, 0 <= number < count.
    """
    with ExitStack() as stack:
        files = [stack.enter_context((folder / f".slot{number}").open("w")) for number in range(count)]
        while (number := next((n for n, file in enumerate(files) if try_lock(file)), None)) is None:
            time.sleep(0.2)
        yield number


def slots(jobs: int) -> int:
    """How many runs go on side by side; as joblib counts, -1 is one a core, -2 one less."""
    return jobs if jobs > 0 else max(1, _cores() + 1 + jobs)


def share(number: int, count: int) -> dict[str, str]:
    """Environment variables that give a slot its share of the threads and GPUs of this machine."""
    threads = str(max(1, _cores() // count))
    variables = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), threads)
    gpus = _gpus()
    if gpus:
        mine = gpus[number::count] or [gpus[number % len(gpus)]]  # more runs than GPUs: several share one
        variables["CUDA_VISIBLE_DEVICES"] = ",".join(mine)
    return variables


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _gpus() -> list[str]:
    """The GPUs that this process may use."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [gpu for gpu in given.split(",") if gpu]
    if not any(Path("/dev").glob("nvidia[0-9]*")):
        return []  # and torch, which takes seconds to import, need not be asked
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]
