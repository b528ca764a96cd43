"""A run in a process of its own, whose death affects no other run.

``python -m d2timm.sweep.processes`` is that process, which reads its task from standard input.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from ..engine.run import start
from ..errors import ConfigError
from ..runs.record import Record, hold, is_held, is_held_by_another
from ..utils.quiet import silence
from ..utils.signals import STOP_SIGNALS, Interrupted
from ..utils.text import error_reason
from . import stopping
from .earlier import LOST, is_open

__all__ = ["run_process", "start_recorded", "start_run"]

GRACE = 30.0  # seconds in which a run that must end saves its state


def start_run(tree: dict[str, Any], options: argparse.Namespace, command: list[str]) -> None:
    """Train in this process, or for several GPUs in the processes that it starts."""
    start(OmegaConf.create(tree, flags={"allow_objects": True}), options, command)


def start_recorded(
    tree: dict[str, Any], folder: Path, options: argparse.Namespace, command: list[str]
) -> bool:
    """Train in this process and write a failure to the record; returns whether the run succeeded."""
    # several processes hold the folder by themselves
    held = hold(folder) if options.num_gpus == 1 else nullcontext()
    try:
        with held:
            record = Record.read(folder)
            if record and (record.status == "failed" or not is_open(record, tree, options)):
                return True  # another process has trained the run since this one looked at it
            start_run(tree, options, command)
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


def run_process(
    tree: dict[str, Any],
    folder: Path,
    options: argparse.Namespace,
    command: list[str],
    environment: dict[str, str],
    limit: float | None = None,
) -> None:
    """Train in a new process, whose death affects no other run; its output goes to ``output.txt``.

    Args:
        tree: the config.
        folder: of the run; it exists.
        options: the flags of the run.
        command: the command line that repeats it.
        environment: variables of the process, in addition to those of this one.
        limit: seconds after which the run is interrupted; None: it is not.
    """
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
                _communicate(process, task, limit)
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


def _communicate(process: subprocess.Popen[str], task: str, limit: float | None) -> None:
    """Hand a process its task and wait until it has ended, at the latest soon after a limit in seconds."""
    try:
        process.communicate(task, limit)
    except subprocess.TimeoutExpired:
        process.terminate()  # the run saves its state
        try:
            process.communicate(timeout=GRACE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


def _first_record(tree: dict[str, Any], command: list[str]) -> Record:
    """The record of a run that ended before it wrote one."""
    train = tree["train"]
    model_name = tree["model"]["backbone"]["bottom_up"]["model_name"]
    return Record(command=command, model_name=str(model_name), metric=train["metric"] or Record.metric)


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
        return int(not start_recorded(task["tree"], folder, options, task["command"]))
    except Interrupted as interrupted:
        record = Record.read(folder)
        if record and orphaned.is_set():
            record.error = LOST
            record.write(folder)
        return interrupted.exit_code


if __name__ == "__main__":
    sys.exit(main())
