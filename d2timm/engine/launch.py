"""Start the processes of a run: one, several GPUs or machines, or what torchrun has started."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from detectron2.engine import launch as launch_workers
from detectron2.utils import comm

__all__ = ["launch", "num_processes", "set_threads", "under_torchrun"]

#: What torch found in OMP_NUM_THREADS or in the machine; an earlier run in this process may have changed it.
DEFAULT_THREADS = torch.get_num_threads()


def under_torchrun() -> bool:
    """Whether torchrun has started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def num_processes(options: Namespace) -> int:
    """Processes of the whole run, on all machines; ``options`` as in ``launch``."""
    return int(os.environ["WORLD_SIZE"]) if under_torchrun() else options.num_gpus * options.num_machines


def launch(main: Callable[..., Any], options: Namespace, *args: Any) -> None:
    """Run ``main(*args)`` in every process of the run.

    Processes talk over NCCL where there are GPUs and over gloo where there are none.

    Args:
        main: a function of a module, so that other processes can import it.
        options: ``num_gpus``, ``num_machines``, ``machine_rank`` and ``dist_url`` as in detectron2;
            without a GPU, ``num_gpus`` is the number of processes.
        args: of ``main``.
    """
    if under_torchrun():
        _join_torchrun()
        try:
            main(*args)
        finally:
            dist.destroy_process_group()
    else:
        launch_workers(
            main,
            options.num_gpus,
            num_machines=options.num_machines,
            machine_rank=options.machine_rank,
            dist_url=options.dist_url,
            args=args,
        )


def set_threads(threads: int | None) -> None:
    """Compute on so many threads; None: the cores, divided among this machine's processes.

    On the CPU the order of sums, and so the last bits of a result, depends on it.
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
