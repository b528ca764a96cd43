"""One job of Hydra's: a run of its own, or one of a sweep.

A job of a sweep never raises for what befalls its run: the reason goes into the run folder, and the other
jobs go on. What a folder holds from before decides what a job does:

    nothing                 train
    done                    nothing: its score is read
    cut off, or paused      go on from the last checkpoint
    failed                  nothing, unless failures are to be repeated
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
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from ..config.lazy import load, to_plain
from ..engine.run import start
from ..errors import ConfigError
from ..runs.record import Record, is_held, move_aside
from ..utils.quiet import silence
from ..utils.text import error_reason
from ..utils.trees import flatten
from .slots import share, slot, slots

__all__ = ["PAUSE", "in_sweep", "job_name", "run_job"]

#: The launcher whose jobs run in this process, one after the other; those of others have a process each.
HERE = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"
#: How many jobs a launcher may have on this machine at once; not set where it gives out cores and GPUs itself
AT_ONCE = "D2TIMM_JOBS_AT_ONCE"
#: Values that a run may be gone on with though they have changed
FREE = ("output_dir", "pause_at", "stop_below_median", "threads", "writers")
PAUSE = "train.pause_at"
LONGEST_NAME = 120


def run_job(cfg: DictConfig, options: argparse.Namespace) -> float | None:
    """Run what Hydra has composed.

    Args:
        cfg: the composed tree.
        options: what ``scripts/hydra_train.py`` parses.

    Returns:
        The metric that runs are compared by, for sweepers that optimise it; None if there is none.
    """
    hydra = HydraConfig.get()
    tree = _on_its_own(cfg)
    told = map(str, hydra.overrides.task)
    kept = [override for override in told if not re.match(rf"\+*(train.output_dir|{PAUSE})=", override)]
    flags = [] if options.num_gpus == 1 else ["--num-gpus", str(options.num_gpus)]
    command = ["d2timm", "sweep", *flags, *kept]
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
    """Whether Hydra's own config is that of a job of a sweep: those have numbers."""
    return not OmegaConf.is_missing(hydra.job, "num")


def _run_in_sweep(
    tree: dict[str, Any], folder: Path, options: argparse.Namespace, command: list[str]
) -> None:
    earlier = Record.read(folder)
    if earlier and is_held(folder):
        return _tell(folder, "is being trained by another process")
    if earlier and not _is_open(earlier, tree, options):
        _check_same(tree, folder)
        return _tell(folder, f"{earlier.status} before")
    if earlier and earlier.status == "failed":
        move_aside(folder)
    elif earlier:
        _check_same(tree, folder)
    folder.mkdir(parents=True, exist_ok=True)
    options = argparse.Namespace(**{**vars(options), "resume": True})
    if HydraConfig.get().launcher._target_ == HERE:
        _start_noted(tree, folder, options, command)
        _tidy_up()
    elif AT_ONCE in os.environ:
        at_once = slots(int(os.environ[AT_ONCE]))
        with slot(folder.parent, at_once) as number:
            _start_apart(tree, folder, options, command, share(number, at_once))
    else:
        _start_apart(tree, folder, options, command, {})
    record = Record.read(folder)
    assert record, "a job leaves a record, whatever befalls its run"
    score = f"{record.metric} {record.score:.2f}" if record.score is not None else "no score"
    return _tell(folder, f"{record.status}: {record.error or record.stopped or score}")


def _on_its_own(cfg: DictConfig) -> dict[str, Any]:
    """The tree as plain data, without what only Hydra could resolve later."""
    tree: dict[str, Any] = to_plain(cfg)

    def resolve(node: Any, path: str) -> Any:
        if isinstance(node, dict):
            return {key: resolve(value, f"{path}.{key}" if path else key) for key, value in node.items()}
        if isinstance(node, list):
            return [resolve(value, f"{path}[{i}]") for i, value in enumerate(node)]
        return OmegaConf.select(cfg, path) if isinstance(node, str) and "${hydra:" in node else node

    return {key: resolve(value, key) for key, value in tree.items()}


def _start(tree: dict[str, Any], options: argparse.Namespace, command: list[str]) -> None:
    """Train in this process (and in those that it starts, for several GPUs)."""
    start(OmegaConf.create(tree, flags={"allow_objects": True}), options, command)


def _start_noted(tree: dict[str, Any], folder: Path, options: argparse.Namespace, command: list[str]) -> bool:
    """Train in this process; a failure goes into the record. Returns whether all went well."""
    try:
        _start(tree, options, command)
    except Exception as error:
        if not isinstance(error, ConfigError):
            traceback.print_exc()
        record = Record.read(folder) or _first_record(tree, command)
        if record.status != "failed":
            record.status, record.error = "failed", error_reason(error)
            record.write(folder)
        return False
    return True


def _start_apart(
    tree: dict[str, Any],
    folder: Path,
    options: argparse.Namespace,
    command: list[str],
    environment: dict[str, str],
) -> None:
    """Train in a process of its own, whose death is no one else's; what it prints goes to output.txt."""
    told = json.dumps({"tree": tree, "folder": str(folder), "options": vars(options), "command": command})
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
            process.communicate(told)
        except BaseException:  # this process is to end, and the folder to be free for another
            process.kill()
            process.wait()
            raise
    record = Record.read(folder) or _first_record(tree, command)
    if process.returncode == 0 or record.status != "running":
        return  # it has noted what there is to note
    if process.returncode < 0:
        record.error = f"killed by {signal.Signals(-process.returncode).name}"
    else:
        record.status, record.error = "failed", f"exit code {process.returncode}; output.txt tells more"
    record.write(folder)


def _first_record(tree: dict[str, Any], command: list[str]) -> Record:
    """The record of a run that has not come as far as having one."""
    train = tree["train"]
    model_name = tree["model"]["backbone"]["bottom_up"]["model_name"]
    return Record(command=command, model_name=str(model_name), metric=train["metric"] or Record.metric)


def _is_open(earlier: Record, tree: dict[str, Any], options: argparse.Namespace) -> bool:
    """Whether there is more to do in a folder where nobody trains."""
    if earlier.status == "failed":
        return bool(options.repeat_failed)
    if earlier.status == "running":
        return options.resume_lost or not earlier.error
    end = min(tree["train"]["pause_at"] or earlier.max_iter, earlier.max_iter)
    return not earlier.stopped and earlier.iterations < end


def _check_same(tree: dict[str, Any], folder: Path) -> None:
    """Raise ConfigError if a folder holds a run of other settings."""
    file = folder / "config.yaml"
    if not file.is_file():
        return  # it was cut off before it had one
    there = flatten(to_plain(load(file)), lists=True)
    here = flatten(tree, lists=True)
    if here["data.name"] == "auto":
        here["data.name"] = there.get("data.name")  # which set that is, is settled when a run starts
    for key in FREE:
        there.pop(f"train.{key}", None)
        here.pop(f"train.{key}", None)
    differing = sorted(key for key in here.keys() | there.keys() if here.get(key) != there.get(key))
    if differing:
        key = differing[0]
        raise ConfigError(
            f"{folder} holds a run of other settings, such as {key}={there.get(key)} (here "
            f"{here.get(key)}): choose another hydra.sweep.dir"
        )


def _tidy_up() -> None:
    """Leave nothing of a run in this process."""
    if "detectron2" in sys.modules:
        import torch

        from ..data.catalog import forget

        forget()
        gc.collect()
        torch.cuda.empty_cache()


def _tell(folder: Path, told: str) -> None:
    print(f"[{folder.name}] {told}", flush=True)


def job_name(overrides: str) -> str:
    """A folder's name for the overrides of a job: readable, safe, and its own.

    Args:
        overrides: as Hydra joins them: ``key=value,key=value``.
    """
    name = re.sub(r"(^|,)[^=,]*\.([^=,.]+)=", r"\1\2=", overrides)
    safe = re.sub(r"[^\w.=,+-]+", "_", name, flags=re.ASCII).strip("_.")[:LONGEST_NAME]
    if safe != name:
        safe += f"-{hashlib.sha1(overrides.encode()).hexdigest()[:6]}"  # what was left out tells names apart
    return safe or "run"


# Imported with run_job by the processes of all launchers, which ask for it before they call run_job
OmegaConf.register_new_resolver("d2timm_job_name", job_name, replace=True)


def _end_with(parent: int, folder: Path) -> None:
    """End this process when its parent has ended, and say so in the run folder."""
    while os.getppid() == parent:
        time.sleep(0.5)
    try:
        record = Record.read(folder)
        if record and record.status == "running":
            record.error = "its worker process was killed"
            record.write(folder)
    finally:
        os._exit(1)


def main() -> int:
    """A process of one run: told on standard input what to do; returns the exit code."""
    parent = os.getppid()
    silence()
    told = json.load(sys.stdin)
    folder, options = Path(told["folder"]), argparse.Namespace(**told["options"])
    threading.Thread(target=_end_with, args=(parent, folder), daemon=True).start()
    return int(not _start_noted(told["tree"], folder, options, told["command"]))


if __name__ == "__main__":
    sys.exit(main())
