"""Worker processes that read images; one that dies, as for lack of memory, is replaced."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal, TypeAlias

import torch
from detectron2.utils import comm
from torch.utils.data import DataLoader

from ..utils.bounds import Bounds
from ..utils.cores import count_cores
from ..utils.signals import STOP_SIGNALS

__all__ = ["Workers", "count_workers", "prepare_worker", "replacing_workers"]

logger = logging.getLogger(__name__)

#: A number of processes that read images; ``auto``: see ``count_workers``
Workers: TypeAlias = Annotated[int, Bounds(at_least=0, at_most=1024)] | Literal["auto"]

#: As many as a step needs that a GPU computes, or this machine: a core reads 50 to 150 images per second
MOST_FOR_GPU, MOST_FOR_CPU = 8, 2
PARENT_PERIOD = 1.0  # seconds after which a worker sees that its parent has ended
MOST_DEATHS = 3  # of workers without a batch in between, after which something else must be wrong


def count_workers(workers: int | str) -> int:
    """The number of processes that read images for this process.

    Args:
        workers: their number; ``auto``: the cores of this machine, or those that a sweep leaves to this run,
            divided among the run's processes on it; at least 1, and not more than a training step needs.
    """
    if workers != "auto":
        return int(workers)
    most = MOST_FOR_GPU if torch.cuda.is_available() else MOST_FOR_CPU
    processes: int = comm.get_local_size()
    return min(max(count_cores() // processes, 1), most)


def replacing_workers(open_at: Callable[[int], DataLoader[Any]], position: int) -> Iterator[Any]:
    """Yield the batches of a loader from a position on; opens it again if one of its workers dies."""
    deaths = 0
    while True:
        try:
            loader = iter(open_at(position))
            _detect_deaths_between_batches()
            for batch in loader:
                position, deaths = position + 1, 0
                yield batch
            return
        except RuntimeError as error:
            deaths += 1
            if not str(error).startswith("DataLoader worker (pid") or deaths > MOST_DEATHS:
                raise
            logger.warning("%s; it is replaced", str(error).strip().partition("\n")[0].rstrip(". "))


def prepare_worker(worker: int) -> None:
    """Leave it to the training process when a worker ends: not to signals, and at the latest with it."""
    for number in STOP_SIGNALS:
        if number != signal.SIGTERM:  # torch has its own handler, by which a loader ends its workers
            signal.signal(number, signal.SIG_IGN)
    if parent := multiprocessing.parent_process():
        threading.Thread(target=_end_with, args=(parent.pid,), daemon=True).start()


def _end_with(parent: int) -> None:
    """End this process after its parent, which may have been killed.

    By itself, it would wait for ever until somebody has read its batches.
    """
    while os.getppid() == parent:
        time.sleep(PARENT_PERIOD)
    os._exit(1)


def _detect_deaths_between_batches() -> None:
    """Remove torch's signal handler, which raises the error of a dead worker in the middle of a step."""
    handler = signal.getsignal(signal.SIGCHLD)
    by_torch = getattr(handler, "__module__", "") == "torch.utils.data._utils.signal_handling"
    if by_torch and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
