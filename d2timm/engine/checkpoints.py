"""When a run is saved: periodically, before evaluations, at the end, and when a signal asks it to stop."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from pathlib import Path

from detectron2.engine import HookBase
from detectron2.utils import comm

from ..errors import ConfigError
from ..runs.checkpoint import LAST, AtomicCheckpointer
from ..runs.record import Record
from ..utils.signals import StopSignals
from ..utils.text import one_line
from .agreement import highest

__all__ = ["SaveCheckpoints"]

logger = logging.getLogger(__name__)

FINAL = "model_final"


class SaveCheckpoints(HookBase):
    """Saves checkpoints from which the run continues as if it had not been interrupted.

    A checkpoint has the state after a step; hooks behind this one, such as the evaluation, run again when a
    run continues from it. Register it in all processes.

    Args:
        checkpointer: saves in the first process.
        signals: those that ask the run to stop.
        record: the record of the run, whose error says if a checkpoint could not be written.
        restore_folder: creates the folder of the run anew if it has vanished.
        period: iterations between checkpoints.
        eval_period: iterations between evaluations; a checkpoint precedes each, because it may take long.
        max_to_keep: number of periodic checkpoints to keep; older ones are deleted.
    """

    def __init__(
        self,
        checkpointer: AtomicCheckpointer,
        signals: StopSignals,
        record: Record,
        restore_folder: Callable[[], object],
        period: int,
        eval_period: int,
        max_to_keep: int,
    ) -> None:
        self.checkpointer, self.signals = checkpointer, signals
        self.record, self.restore_folder = record, restore_folder
        self.period, self.eval_period, self.max_to_keep = period, eval_period, max_to_keep

    def before_step(self) -> None:
        """Complete the step before a signal stops the run."""
        self.signals.hold()

    def after_step(self) -> None:
        """Save if it is time; then stop if a signal asks for it, in all processes together."""
        done = self.trainer.iter + 1
        at_end = done >= self.trainer.max_iter
        self.signals.received = highest(self.signals.received or 0) or None
        is_due = any(period and done % period == 0 for period in (self.period, self.eval_period))
        if at_end or is_due or self.signals.received:
            self._save(FINAL if at_end else f"model_{self.trainer.iter:07d}", at_end)
            comm.synchronize()
        self.signals.release()

    def _save(self, name: str, at_end: bool) -> None:
        if not comm.is_main_process():
            return
        folder = Path(self.checkpointer.save_dir)
        if not folder.is_dir():
            logger.warning("%s has vanished; it is created anew", folder)
            self.restore_folder()
        try:
            self.checkpointer.save(name, iteration=self.trainer.iter)
        except OSError as error:
            last = folder / LAST
            newest = last.read_text() if last.is_file() else "none"
            self.record.error = f"{one_line(error)}; the newest checkpoint is {newest}"
            if at_end:
                raise ConfigError(f"{self.record.error}; make space, then continue with --resume") from error
            logger.warning("%s; the training continues", self.record.error)
            return
        self.record.error = None
        self._delete_old_ones(folder)

    def _delete_old_ones(self, folder: Path) -> None:
        periodic = [file for file in folder.glob("model_*.pth") if re.fullmatch(r"model_\d{7,}", file.stem)]
        periodic.sort(key=lambda file: file.stat().st_mtime_ns, reverse=True)
        for file in periodic[self.max_to_keep :]:
            file.unlink()
