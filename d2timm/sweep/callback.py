"""The start and the end of a sweep: its folder is noted, its leaderboard is printed."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any, ClassVar

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from ..runs.record import FILE
from .stopping import SweepSignals

__all__ = ["SweepFolder", "print_leaderboard"]

SUCCESSFUL = {"done", "stopped", "paused", "running"}  # running: by another process


class SweepFolder(Callback):
    """A callback of Hydra that notes the folder of the sweep that this process runs.

    Attributes:
        path: the folder; None if no sweep has started.
    """

    path: ClassVar[Path | None] = None

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Create the folder, whose name Hydra has completed with the time."""
        SweepFolder.path = Path(config.hydra.sweep.dir)
        SweepFolder.path.mkdir(parents=True, exist_ok=True)
        print(f"sweep folder: {SweepFolder.path}")
        if SweepSignals.current:
            SweepSignals.current.start(SweepFolder.path, config.hydra.launcher)


def print_leaderboard(sweep: Path) -> int:
    """Write and print the leaderboard of a sweep, and how to continue it if runs did not finish.

    Returns:
        The exit code: 0 if all runs are done, stopped, paused or trained by another process, otherwise 1.
    """
    from ..report.leaderboard import write_leaderboard  # imports matplotlib
    from ..report.tables import summary

    if not any(sweep.glob(f"*/{FILE}")):
        return 1  # no run has started, and the error that prevented it has been printed
    entries = write_leaderboard(sweep)
    print(summary(entries))
    statuses = {run.status for entry in entries for run in entry.runs}
    again = shlex.quote(f"hydra.sweep.dir={sweep}")
    if statuses & {"interrupted", "killed"}:
        print(f"To continue interrupted runs, start the sweep again with {again}")
    if "failed" in statuses:
        print(f"To repeat failed runs, add --repeat-failed {again}")
    return int(not statuses <= SUCCESSFUL)
