"""The jobs of Hydra: a single run, or one run of a sweep.

A job of a sweep does not raise if its run fails: the reason is written to the run folder, and the other jobs
continue. An earlier run in the folder decides what the job does:

    no run                           train
    done                             nothing; its score is read
    interrupted, killed or paused    continue from the last checkpoint
    failed                           nothing, unless failed runs are to be repeated
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import os
import re
import sys
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from ..config.lazy import to_plain
from ..runs.aside import move_aside
from ..runs.record import Record, is_held
from . import processes, stopping
from .earlier import check_same, is_open
from .slots import count_slots, share, slot

__all__ = ["PAUSE", "in_sweep", "job_name", "run_job"]

#: The launcher whose jobs run in this process one by one; each job of another launcher has its own process
IN_PROCESS = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"
#: The number of jobs that a launcher runs at the same time on this machine; not set for launchers that assign
#: cores and GPUs themselves
JOBS_AT_ONCE = "D2TIMM_JOBS_AT_ONCE"
PAUSE = "train.pause_at"
MAX_NAME = 120  # characters


def run_job(cfg: DictConfig, options: argparse.Namespace) -> float | None:
    """Run a composed config.

    Args:
        cfg: the composed tree.
        options: the flags of ``d2timm sweep``.

    Returns:
        The value of ``train.metric``, for sweepers that optimize it; None if there is none.
    """
    hydra = HydraConfig.get()
    tree = _detach(cfg)
    ignored = re.compile(rf"\+*(train.output_dir|{PAUSE})=")
    overrides = [text for text in map(str, hydra.overrides.task) if not ignored.match(text)]
    flags = [] if options.num_gpus == 1 else ["--num-gpus", str(options.num_gpus)]
    command = ["d2timm", "sweep", *flags, *overrides]
    folder = Path(hydra.runtime.output_dir)
    if not in_sweep(hydra):
        processes.start_run(tree, options, command)
    else:
        tree["train"]["output_dir"] = str(folder)
        if options.dry_run or options.eval_only:
            processes.start_run(tree, options, command)
        else:
            _run_in_sweep(tree, folder, options, command)
    record = Record.read(folder)
    return record.score if record else None


def in_sweep(hydra: Any) -> bool:
    """Whether a config of Hydra belongs to a job of a sweep, which has a number."""
    return not OmegaConf.is_missing(hydra.job, "num")


def _run_in_sweep(
    tree: dict[str, Any], folder: Path, options: argparse.Namespace, command: list[str]
) -> None:
    if stopping.is_requested(folder.parent):
        return None
    earlier = Record.read(folder)
    if earlier and is_held(folder):
        return _report(folder, "is being trained by another process")
    if earlier and not is_open(earlier, tree, options):
        check_same(tree, folder)
        return _report(folder, f"{earlier.status} before")
    if earlier and earlier.status == "failed":
        move_aside(folder)
    elif earlier:
        check_same(tree, folder)
    folder.mkdir(parents=True, exist_ok=True)
    options = argparse.Namespace(**{**vars(options), "resume": True})
    if HydraConfig.get().launcher._target_ == IN_PROCESS:
        processes.start_recorded(tree, folder, options, command)
        _clean_up()
    elif JOBS_AT_ONCE in os.environ:
        count = count_slots(int(os.environ[JOBS_AT_ONCE]))
        with slot(folder.parent, count) as number:
            processes.run_process(tree, folder, options, command, share(number, count))
    else:
        processes.run_process(tree, folder, options, command, {})
    if is_held(folder):
        return _report(folder, "is being trained by another process")
    record = Record.read(folder)
    assert record, "every job leaves a record"
    score = f"{record.metric} {record.score:.2f}" if record.score is not None else "no score"
    return _report(folder, f"{record.status}: {record.error or record.stopped or score}")


def _detach(cfg: DictConfig) -> dict[str, Any]:
    """The tree as plain data, with the interpolations resolved that only Hydra can resolve."""
    tree: dict[str, Any] = to_plain(cfg)

    def resolve(node: Any, path: str) -> Any:
        if isinstance(node, dict):
            return {key: resolve(value, f"{path}.{key}" if path else key) for key, value in node.items()}
        if isinstance(node, list):
            return [resolve(value, f"{path}[{i}]") for i, value in enumerate(node)]
        return OmegaConf.select(cfg, path) if isinstance(node, str) and "${hydra:" in node else node

    return {key: resolve(value, key) for key, value in tree.items()}


def _clean_up() -> None:
    """Remove the traces of a run from this process: registered datasets, and memory of the GPU."""
    if "detectron2" in sys.modules:
        import torch

        from ..data.catalog import forget

        forget()
        gc.collect()
        torch.cuda.empty_cache()


def _report(folder: Path, message: str) -> None:
    print(f"[{folder.name}] {message}", flush=True)


def job_name(overrides: str) -> str:
    """Turn the overrides of a job into the name of its folder, which is readable, safe and unique.

    Args:
        overrides: ``key=value,key=value``, as joined by Hydra.
    """
    name = re.sub(r"(^|,)[^=,]*\.([^=,.]+)=", r"\1\2=", overrides)
    safe = re.sub(r"[^\w.=,+-]+", "_", name, flags=re.ASCII).strip("_.")[:MAX_NAME]
    if safe != name:
        safe += f"-{hashlib.sha1(overrides.encode()).hexdigest()[:6]}"  # different names stay different
    return safe or "run"


# The processes of all launchers import this module with run_job, before they need the resolver
OmegaConf.register_new_resolver("d2timm_job_name", job_name, replace=True)
