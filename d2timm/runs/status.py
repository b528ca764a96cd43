"""Read the run folders of a sweep, each with its status."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ..errors import ConfigError
from ..utils.text import printable
from .record import FILE, Record, is_held

__all__ = ["STATUSES", "Run", "read_run", "read_runs", "run_folders"]

#: Ordered from the most to the least progress
STATUSES = ("done", "stopped", "paused", "running", "interrupted", "killed", "failed", "unreadable")

SWEEP = f"the folder of a sweep, with run folders that have a {FILE}"


@dataclass(frozen=True)
class Run:
    """A run folder at the moment when it was read.

    Attributes:
        name: name of the folder.
        status: ``done`` (its schedule ended), ``stopped`` (early, on purpose), ``paused`` (ended before its
            schedule did), ``running``, ``interrupted`` (by a signal, and saved), ``killed`` (no process
            trains it any more), ``failed`` or ``unreadable``.
        reason: explains the status in one line; may be empty.
        record: the record in the folder; a default one if it is unreadable.
    """

    name: str
    status: str
    reason: str
    record: Record


def run_folders(sweep: Path) -> list[Path]:
    """The folders in a folder that may hold runs, sorted by name.

    Hidden folders are skipped, and so are earlier runs that were moved to ``NAME~1`` if ``NAME`` exists.

    Raises:
        ConfigError: the folder does not exist.
    """
    if not sweep.is_dir():
        problem = "is a file" if sweep.exists() else "does not exist"
        raise ConfigError(f"{sweep} {problem}; expected {SWEEP}, such as its hydra.sweep.dir")
    folders = {folder.name: folder for folder in sweep.iterdir() if folder.is_dir()}
    found = []
    for name, folder in sorted(folders.items()):
        aside = re.fullmatch(r"(.+)~\d+", name)
        if not name.startswith(".") and not (aside and aside[1] in folders):
            found.append(folder)
    return found


def read_runs(sweep: Path) -> list[Run]:
    """Read all runs of a sweep, in the order of ``run_folders``; some may be training.

    Raises:
        ConfigError: the folder does not exist, or has no run folder in it.
    """
    runs = [run for folder in run_folders(sweep) if (run := read_run(folder)) is not None]
    if not runs:
        fix = f"use {sweep.parent}" if (sweep / FILE).exists() else "use another, or wait for its first job"
        raise ConfigError(f"{sweep} has no run folder in it; expected {SWEEP}; {fix}")
    return runs


def read_run(folder: Path) -> Run | None:
    """Read the run in a folder; None if there is none. One that cannot be read is ``unreadable``."""
    name = printable(folder.name)
    try:
        record = Record.read(folder)
        held = record is not None and record.status == "running" and is_held(folder)
        if record is not None and record.status == "running" and not held:
            record = Record.read(folder)  # it may have ended since the first read
    except ConfigError as error:
        problem = str(error).removeprefix(f"{folder}/")
        return Run(name, "unreadable", printable(problem), Record(pid=0, host=""))
    if record is None:
        return None
    status, reason = _status(record, held)
    return Run(name, status, printable(reason), record)


def _status(record: Record, held: bool) -> tuple[str, str]:
    """Return (status, reason) of a run."""
    progress = f"{record.iterations} of {record.max_iter} iterations"
    if record.status == "failed":
        return "failed", record.error or "no reason is recorded"
    if record.status == "interrupted":
        return "interrupted", f"{progress}: {record.error}"
    if record.status == "running" and held:
        return "running", f"{progress}; {record.error}" if record.error else progress
    if record.status == "running":
        killed = f"cut off at iteration {record.iterations} of {record.max_iter}"
        return "killed", f"{killed}: {record.error}" if record.error else killed
    if record.stopped:
        return "stopped", record.stopped
    if record.iterations < record.max_iter:
        return "paused", progress
    return "done", ""
