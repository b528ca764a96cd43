"""Start the processes of a run: one, several GPUs or machines, or those that torchrun started."""

from __future__ import annotations

import os
import signal
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import wait
from threading import Thread
from typing import Any

import torch
import torch.distributed as dist
from detectron2.engine import launch as launch_workers
from detectron2.utils import comm
from torch import multiprocessing
from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException

from ..errors import ConfigError
from ..utils.quiet import silence
from ..utils.signals import Interrupted, StopSignals

__all__ = ["is_first_process", "launch", "num_processes", "set_threads", "under_torchrun"]

#: Torch's own choice, from OMP_NUM_THREADS or the cores; read at import, before a run changes it
DEFAULT_THREADS = torch.get_num_threads()
#: Of the processes of an interrupted run, after the first of them has ended
LAST_SECONDS = 30.0


def under_torchrun() -> bool:
    """Return whether torchrun started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def num_processes(options: Namespace) -> int:
    """Return the number of processes of the run on all machines; ``options`` as in ``launch``."""
    return int(os.environ["WORLD_SIZE"]) if under_torchrun() else options.num_gpus * options.num_machines


def is_first_process(options: Namespace) -> bool:
    """Return whether this process is, or launches, the process of rank 0; ``options`` as in ``launch``."""
    return int(os.environ["RANK"] if under_torchrun() else options.machine_rank) == 0


def launch(main: Callable[..., Any], options: Namespace, *args: Any) -> None:
    """Run ``main(*args)`` in every process of the run.

    Processes communicate over NCCL if there are GPUs, otherwise over gloo.

    Args:
        main: a function at module level, so that other processes can import it.
        options: ``num_gpus``, ``num_machines``, ``machine_rank`` and ``dist_url`` as in detectron2;
            without a GPU, ``num_gpus`` is the number of processes.
        args: arguments of ``main``.

    Raises:
        ConfigError: ``main`` raised it, in any process of this machine.
        Interrupted: the same, or this process received a signal.
    """
    if under_torchrun():
        _join_torchrun()
        try:
            main(*args)
        finally:
            dist.destroy_process_group()
    elif num_processes(options) == 1:
        main(*args)
    else:
        _launch_workers(main, options, *args)


def _launch_workers(main: Callable[..., Any], options: Namespace, *args: Any) -> None:
    """Run ``main(*args)`` in new processes; a signal to this one is passed on to them."""
    ends = multiprocessing.get_context("spawn").SimpleQueue()
    signals = StopSignals()
    with signals.handled(_pass_on), signals.held():
        try:
            launch_workers(
                _work,
                options.num_gpus,
                num_machines=options.num_machines,
                machine_rank=options.machine_rank,
                dist_url=options.dist_url,
                args=(main, ends, *args),
            )
        except (ProcessExitedException, ProcessRaisedException):
            if ends.empty() and signals.received is None:
                raise
    if not ends.empty():
        raise ends.get()


def _work(main: Callable[..., Any], ends: Any, *args: Any) -> None:
    """Run ``main`` in a process that detectron2 started, and pass on how it ended, unless by a fault."""
    silence()
    try:
        main(*args)
    except ConfigError as error:
        ends.put(ConfigError(str(error)))
        sys.exit(1)
    except Interrupted as interrupted:
        ends.put(Interrupted(interrupted.number))  # an exit code would make the others end at once


def _pass_on(number: int) -> None:
    """Send a signal to all child processes, and kill those that outlive another one by too much."""
    children = multiprocessing.active_children()
    if not children:
        raise Interrupted(number)  # they have yet to start
    for child in children:
        if child.pid is not None:
            with suppress(ProcessLookupError):
                os.kill(child.pid, number)
    Thread(target=_kill_late_ones, args=(children,), daemon=True).start()


def _kill_late_ones(children: Sequence[Any]) -> None:
    wait([child.sentinel for child in children])  # the thread that started them joins them
    end = time.monotonic() + LAST_SECONDS
    for child in children:
        if not wait([child.sentinel], max(0, end - time.monotonic())):
            os.kill(child.pid, signal.SIGKILL)


def set_threads(threads: int | None) -> None:
    """Set the number of threads that torch computes with.

    On the CPU it determines the order of sums, and with it the last bits of results.

    Args:
        threads: >= 1; None: torch's default, or on the CPU the cores divided among the processes of this
            machine if there are several.
    """
    local = comm.get_local_size()
    if threads is None and local > 1 and not torch.cuda.is_available():
        threads = max(1, len(os.sched_getaffinity(0)) // local)
    torch.set_num_threads(threads or DEFAULT_THREADS)


def _join_torchrun() -> None:
    gpu = torch.cuda.is_available()
    if gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if gpu else "gloo")
    comm.create_local_process_group(int(os.environ["LOCAL_WORLD_SIZE"]))
