"""Slots for runs at the same time on one machine, each with a share of its cores and GPUs."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ..utils.cores import SHARE, count_cores
from ..utils.files import try_lock

__all__ = ["count_slots", "share", "slot"]


@contextmanager
def slot(folder: Path, count: int) -> Iterator[int]:
    """Hold one of the slots of a sweep, after waiting until one is free.

    A process that dies releases its slot.

    Args:
        folder: the folder of the sweep.
        count: the number of slots, that is, of runs at the same time.

    Yields:
        The number of the slot, 0 <= number < count.
    """
    with ExitStack() as stack:
        files = [stack.enter_context((folder / f".slot{number}").open("w")) for number in range(count)]
        while (number := next((n for n, file in enumerate(files) if try_lock(file)), None)) is None:
            time.sleep(0.2)
        yield number


def count_slots(jobs: int) -> int:
    """The number of slots for joblib's ``n_jobs``: -1 is one per core, -2 one fewer."""
    return jobs if jobs > 0 else max(1, count_cores() + 1 + jobs)


def share(number: int, count: int) -> dict[str, str]:
    """Environment variables that give a slot its share of the cores and GPUs of this machine.

    Args:
        number: the number of the slot, 0 <= number < count.
        count: the number of slots.
    """
    threads = str(max(1, count_cores() // count))
    variables = dict.fromkeys((SHARE, "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), threads)
    gpus = _gpus()
    if gpus:
        own = gpus[number::count] or [gpus[number % len(gpus)]]  # with more runs than GPUs, several share one
        variables["CUDA_VISIBLE_DEVICES"] = ",".join(own)
    return variables


def _gpus() -> list[str]:
    """The GPUs that this process may use."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [gpu for gpu in visible.split(",") if gpu]
    if not any(Path("/dev").glob("nvidia[0-9]*")):
        return []  # without importing torch, which takes seconds
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]
