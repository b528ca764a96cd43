"""How a signal to the process of a sweep stops its runs: each completes its step and saves its state.

The process asks the runs on this machine to stop, whichever launcher has started them, and no other starts.
Then the launcher ends as it does when all runs have ended. Runs on other machines belong to their scheduler,
and continue.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from subprocess import Popen
from typing import Any, ClassVar

from omegaconf import OmegaConf

from ..utils.files import try_lock
from ..utils.signals import Interrupted, StopSignals

__all__ = ["SweepSignals", "is_requested", "listed"]

REQUEST = ".stopping"  # a file in the folder of a sweep whose runs must not start
JOB = ".job"  # a file in a run folder with the process of the run; locked while it may exist


class SweepSignals:
    """The signals that a process of a sweep receives.

    Attributes:
        current: those of the sweep that this process runs.
    """

    current: ClassVar[SweepSignals | None] = None

    def __init__(self) -> None:
        self.signals = StopSignals()
        self.sweep: Path | None = None

    @contextmanager
    def handled(self) -> Iterator[None]:
        """Stop the runs of a sweep if a signal asks for it; raise ``Interrupted`` when they have ended."""
        SweepSignals.current = self
        try:
            with self.signals.handled(self._stop):
                yield
        except Exception:  # as from code that a signal has interrupted where Python cannot raise
            if self.signals.received is None:
                raise
        finally:
            SweepSignals.current = None
        if self.signals.received is not None:
            raise Interrupted(self.signals.received)

    def start(self, sweep: Path, launcher: Any = ()) -> None:
        """Begin a sweep, whose launcher has this config: its runs may start."""
        self.sweep = sweep
        (sweep / REQUEST).unlink(missing_ok=True)
        if "ray" in launcher:  # it replaces the handler of SIGTERM when it starts
            import ray

            options: Any = OmegaConf.to_container(launcher.ray.init, resolve=True)
            options.setdefault("object_store_memory", 75 * 2**20)  # as Hydra's launcher does
            ray.init(**options)
            self.signals.install()

    def _stop(self, number: int) -> None:
        if self.sweep is None:
            return
        (self.sweep / REQUEST).touch()
        processes = [process for process in map(_process, self.sweep.glob(f"*/{JOB}")) if process]
        for process in processes:
            with suppress(ProcessLookupError):
                os.kill(process, number)
        if processes:
            print("Stopping; the runs save their state. Once more to stop at once.", flush=True)
            self.signals.hold()  # until the launcher has ended


def is_requested(sweep: Path) -> bool:
    """Whether no run of a sweep may start, because its process is stopping."""
    return (sweep / REQUEST).exists()


@contextmanager
def listed(process: Popen[str], folder: Path) -> Iterator[None]:
    """List the process of a run in its folder, so that the process of the sweep finds it."""
    with (folder / JOB).open("w") as file:
        try_lock(file)
        file.write(f"{process.pid}@{socket.gethostname()}")
        file.flush()
        try:
            if is_requested(folder.parent):
                process.send_signal(signal.SIGTERM)
            yield
        finally:
            (folder / JOB).unlink(missing_ok=True)


def _process(file: Path) -> int | None:
    """The process of a run that a file lists; None if it has ended, or runs on another machine."""
    try:
        with file.open() as opened:
            pid, _, host = opened.read().partition("@")
            ended = try_lock(opened, exclusive=False)
    except OSError:
        return None
    return None if ended or host != socket.gethostname() else int(pid)
