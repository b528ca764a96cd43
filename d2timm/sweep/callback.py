"""A sweep from its start to its answer: the leaderboard of its run folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from ..runs.record import FILE

__all__ = ["Answer", "answer"]

ENDED = {"done", "stopped", "paused"}


class Answer(Callback):
    """Remembers where the sweep of this process lies, so that it can be told what came of it.

    Attributes:
        folder: of the sweep; None where none was started.
    """

    folder: ClassVar[Path | None] = None

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Note the folder, with its time filled in."""
        Answer.folder = Path(config.hydra.sweep.dir)
        Answer.folder.mkdir(parents=True, exist_ok=True)
        print(f"sweep folder: {Answer.folder}")


def answer(sweep: Path) -> int:
    """Write and print the leaderboard of a sweep.

    Returns:
        The exit code: 0 if every run has ended as it should.
    """
    from ..report.leaderboard import write_leaderboard  # matplotlib: for the end only
    from ..report.tables import summary

    if not any(sweep.glob(f"*/{FILE}")):
        return 1  # it has not come so far; the reason has been told
    entries = write_leaderboard(sweep)
    print(summary(entries))
    states = {run.status for entry in entries for run in entry.runs}
    if "killed" in states:
        print(f"What was cut off goes on when the sweep is started again with hydra.sweep.dir={sweep}")
    if "failed" in states:
        print(f"What has failed runs again with --repeat-failed hydra.sweep.dir={sweep}")
    return int(not states <= ENDED)
