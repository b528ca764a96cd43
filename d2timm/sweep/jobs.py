"""The jobs of Hydra: a single run, or one run of a sweep.

A job of a sweep does not raise if its run fails: the reason is written to the run folder, and the other jobs
continue. An earlier run in the folder decides what the job does:

    no run                           train
    done                             nothing; its score is read
    interrupted, killed or paused    continue from the last checkpoint
    failed                           nothing, unless failed runs are to be repeated

``python -m d2timm.sweep.jobs`` is the process of one job, which reads its task from standard input.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import traceback
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from ..config.lazy import load, to_plain
from ..engine.run import start
from ..errors import ConfigError
from ..runs.aside import move_aside
from ..runs.record import Record, hold, is_held, is_held_by_another
from ..utils.quiet import silence
from ..utils.signals import STOP_SIGNALS, Interrupted
from ..utils.text import error_reason
from ..utils.trees import flatten
from . import stopping
from .slots import count_slots, share, slot

__all__ = ["PAUSE", "in_sweep", "job_name", "run_job"]

#: The launcher whose jobs run in this process one by one; each job of another launcher has its own process
IN_PROCESS = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"
#: The number of jobs that a launcher runs at the same time on this machine; not set for launchers that assign
#: cores and GPUs themselves
JOBS_AT_ONCE = "D2TIMM_JOBS_AT_ONCE"
#: Keys of ``train`` that may change when a run is continued
CHANGEABLE = ("output_dir", "pause_at", "stop_below_median", "threads", "writers")
PAUSE = "train.pause_at"
MAX_NAME = 120  # characters
LOST = "its worker process was killed"  # why a run ended that a launcher had started


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
        _start(tree, options, command)
    else:
        tree["train"]["output_dir"] = str(folder)
        if options.dry_run or options.eval_only:
            _start(tree, options, command)
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
    if earlier and not _is_open(earlier, tree, options):
        _check_same(tree, folder)
        return _report(folder, f"{earlier.status} before")
    if earlier and earlier.status == "failed":
        move_aside(folder)
    elif earlier:
        _check_same(tree, folder)
    folder.mkdir(parents=True, exist_ok=True)
    options = argparse.Namespace(**{**vars(options), "resume": True})
    if HydraConfig.get().launcher._target_ == IN_PROCESS:
        _start_recorded(tree, folder, options, command)
        _clean_up()
    elif JOBS_AT_ONCE in os.environ:
        count = count_slots(int(os.environ[JOBS_AT_ONCE]))
        with slot(folder.parent, count) as number:
            _start_process(tree, folder, options, command, share(number, count))
    else:
        _start_process(tree, folder, options, command, {})
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


def _start(tree: dict[str, Any], options: argparse.Namespace, command: list[str]) -> None:
    """Train in this process, or for several GPUs in the processes that it starts."""
    start(OmegaConf.create(tree, flags={"allow_objects": True}), options, command)


def _start_recorded(
    tree: dict[str, Any], folder: Path, options: argparse.Namespace, command: list[str]
) -> bool:
    """Train in this process and write a failure to the record; returns whether the run succeeded."""
    # several processes hold the folder by themselves
    held = hold(folder) if options.num_gpus == 1 else nullcontext()
    try:
        with held:
            record = Record.read(folder)
            if record and (record.status == "failed" or not _is_open(record, tree, options)):
                return True  # another process has trained the run since this one looked at it
            _start(tree, options, command)
    except Exception as error:
        if not isinstance(error, ConfigError):
            traceback.print_exc()
        if is_held_by_another(folder):  # it has started the run at the same time, and writes its record
            return False
        record = Record.read(folder) or _first_record(tree, command)
        if record.status != "failed":
            record.status, record.error = "failed", error_reason(error)
            record.write(folder)
        return False
    return True


def _start_process(
    tree: dict[str, Any],
    folder: Path,
    options: argparse.Namespace,
    command: list[str],
    environment: dict[str, str],
) -> None:
    """Train in a new process, whose death affects no other run; its output goes to ``output.txt``."""
    task = json.dumps({"tree": tree, "folder": str(folder), "options": vars(options), "command": command})
    with (folder / "output.txt").open("a") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment},
            text=True,
        )
        try:
            with stopping.listed(process, folder):
                process.communicate(task)
        except BaseException:  # this process must end, and leave the folder free for another
            process.terminate()
            process.wait()
            raise
    record = Record.read(folder) or _first_record(tree, command)
    if record.status != "running" or is_held(folder):
        return  # the process has written its record, or another one trains the run
    if -process.returncode in STOP_SIGNALS:  # before it could handle them
        record.status, record.error = "interrupted", str(Interrupted(-process.returncode))
    elif process.returncode < 0:
        record.error = f"killed by {signal.Signals(-process.returncode).name}"
    else:
        record.status, record.error = "failed", f"exit code {process.returncode}; see output.txt"
    record.write(folder)


def _first_record(tree: dict[str, Any], command: list[str]) -> Record:
    """The record of a run that ended before it wrote one."""
    train = tree["train"]
    model_name = tree["model"]["backbone"]["bottom_up"]["model_name"]
    return Record(command=command, model_name=str(model_name), metric=train["metric"] or Record.metric)


def _is_open(earlier: Record, tree: dict[str, Any], options: argparse.Namespace) -> bool:
    """Whether a run that no process trains is to be continued or repeated."""
    if earlier.status == "failed":
        return bool(options.repeat_failed)
    if earlier.status == "interrupted":
        return options.resume_lost or earlier.error != LOST
    if earlier.status == "running":
        return options.resume_lost or not earlier.error
    end = min(tree["train"]["pause_at"] or earlier.max_iter, earlier.max_iter)
    return not earlier.stopped and earlier.iterations < end


def _check_same(tree: dict[str, Any], folder: Path) -> None:
    """Raise ConfigError if a folder holds a run with other settings."""
    file = folder / "config.yaml"
    if not file.is_file():
        return  # the run was interrupted before it had one
    old = flatten(to_plain(load(file)), lists=True)
    new = flatten(tree, lists=True)
    if new["data.name"] == "auto":
        new["data.name"] = old.get("data.name")  # resolved only when a run starts
    changeable = {f"train.{key}" for key in CHANGEABLE}
    if new.get("train.recipe") or new.get("optimizer.opt") == "auto":  # which has set other values since
        from ..engine.recipes import recipe_keys  # imports torch

        changeable |= {"train.recipe", *recipe_keys()}
    for key in changeable:
        old.pop(key, None)
        new.pop(key, None)
    differing = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
    if differing:
        key = differing[0]
        raise ConfigError(
            f"{folder} holds a run with other settings, such as {key}={old.get(key)} instead of "
            f"{new.get(key)}: choose another hydra.sweep.dir"
        )


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


def _stop_with(parent: int, orphaned: threading.Event) -> None:
    """Wait until the parent process has ended, then stop this one; its run is saved first."""
    while os.getppid() == parent:
        time.sleep(0.5)
    orphaned.set()
    os.kill(os.getpid(), signal.SIGTERM)


def main() -> int:
    """Run the job that is described on standard input; returns the exit code."""
    parent = os.getppid()
    silence()
    task = json.load(sys.stdin)
    folder, options = Path(task["folder"]), argparse.Namespace(**task["options"])
    orphaned = threading.Event()
    threading.Thread(target=_stop_with, args=(parent, orphaned), daemon=True).start()
    try:
        return int(not _start_recorded(task["tree"], folder, options, task["command"]))
    except Interrupted as interrupted:
        record = Record.read(folder)
        if record and orphaned.is_set():
            record.error = LOST
            record.write(folder)
        return interrupted.exit_code


if __name__ == "__main__":
    sys.exit(main())
