"""Read the run folders of a sweep, each with its status."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from ..errors import ConfigError
from ..utils.text import printable
from .record import FILE, Record, is_held

__all__ = ["STATUSES", "Run", "read_runs"]

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


def read_runs(sweep: Path) -> list[Run]:
    """Read all runs of a sweep, sorted by name; some may be training.

    Hidden folders are skipped, and so are earlier runs that were moved to ``NAME~1`` if ``NAME`` exists.

    Raises:
        ConfigError: the folder does not exist, or has no run folder in it.
    """
    if not sweep.is_dir():
        problem = "is a file" if sweep.exists() else "does not exist"
        raise ConfigError(f"{sweep} {problem}; expected {SWEEP}, such as its hydra.sweep.dir")
    folders = {folder.name: folder for folder in sweep.iterdir() if folder.is_dir()}
    runs = []
    for name, folder in sorted(folders.items()):
        aside = re.fullmatch(r"(.+)~\d+", name)
        if not name.startswith(".") and not (aside and aside[1] in folders):
            run = _read_run(folder)
            if run is not None:
                runs.append(run)
    if not runs:
        fix = f"use {sweep.parent}" if (sweep / FILE).exists() else "use another, or wait for its first job"
        raise ConfigError(f"{sweep} has no run folder in it; expected {SWEEP}; {fix}")
    return runs


def _read_run(folder: Path) -> Run | None:
    name = printable(folder.name)
    try:
        record = Record.read(folder)
        held = record is not None and record.status == "running" and is_held(folder)
        if record is not None and record.status == "running" and not held:
            record = Record.read(folder)  # it may have ended since the first read
        if record is not None:
            _check(record)
    # A file that no run wrote may be nested too deeply, have too large numbers or values of other types
    except (OSError, ValueError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        problem = error.strerror if isinstance(error, OSError) else error
        return Run(name, "unreadable", printable(f"{FILE}: {problem}"), Record(pid=0, host=""))
    if record is None:
        return None
    status, reason = _status(record, held)
    return Run(name, status, printable(reason), record)


def _check(record: Record) -> None:
    """Raise ValueError for JSON that no run wrote: another program's, or an edited file."""
    if record == Record(pid=0, host=""):
        raise ValueError("has no field of a run's record")
    for name, kind in get_type_hints(Record).items():
        if not _is(getattr(record, name), kind):
            expected = getattr(kind, "__name__", kind)
            raise ValueError(f"{name} is {getattr(record, name)!r:.60}, expected {expected}")
    if record.status not in ("running", "interrupted", "done", "failed"):
        raise ValueError(f"status is {record.status!r}, expected running, interrupted, done or failed")


def _is(value: Any, kind: Any) -> bool:
    """Whether a JSON value has the type of a field; numbers must be finite."""
    origin, inner = get_origin(kind) or kind, get_args(kind)
    if origin is UnionType:
        return any(_is(value, option) for option in inner)
    if origin is tuple:
        return all(_is(part, option) for part, option in zip(value, inner, strict=True))
    if origin is dict:
        return isinstance(value, dict) and all(_is(part, inner[1]) for part in value.values())
    if origin is list:
        return isinstance(value, list) and all(_is(part, inner[0]) for part in value)
    if kind in (int, float):
        number = isinstance(value, int if kind is int else (int, float)) and not isinstance(value, bool)
        return number and math.isfinite(value)
    return isinstance(value, kind)


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
