"""When a run is saved: periodically, before evaluations, at the end, and when a signal asks it to stop."""

from __future__ import annotations

import copy
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from detectron2.engine import HookBase
from detectron2.utils import comm
from torch import Tensor

from ..errors import ConfigError
from ..runs.checkpoint import AtomicCheckpointer, last_checkpoint
from ..runs.record import Record
from ..utils.signals import StopSignals
from ..utils.text import one_line
from .agreement import highest

__all__ = ["SaveCheckpoints", "snapshot"]

logger = logging.getLogger(__name__)

FINAL = "model_final"


class SaveCheckpoints(HookBase):
    """Saves checkpoints from which the run continues as if it had not been interrupted.

    A checkpoint has the state after a step; hooks behind this one, such as the evaluation, run again when a
    run continues from it. While the training goes on, a thread writes a copy of that state; the last
    checkpoint of a run, and that of a signal, are written at once. Register it in all processes.

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
        self._thread = ThreadPoolExecutor(1)
        self._writing: Future[None] | None = None
        self._holds = False

    def before_train(self) -> None:
        """From now on, a signal stops the run only after a step that is saved, or during an evaluation."""
        self.signals.hold()
        self._holds = True

    def after_step(self) -> None:
        """Save if it is time; then stop if a signal asks for it, in all processes together."""
        done = self.trainer.iter + 1
        at_end = done >= self.trainer.max_iter
        self.signals.received = highest(self.signals.received or 0) or None
        is_due = any(period and done % period == 0 for period in (self.period, self.eval_period))
        if self._writing and self._writing.done():
            self.finish()
        if at_end or is_due or self.signals.received:
            stops = at_end or self.signals.received is not None
            self.trainer.read_losses()  # a checkpoint has no weights that are not finite
            self.trainer.gather()
            if comm.is_main_process():
                self._save(FINAL if at_end else f"model_{self.trainer.iter:07d}", stops)
            if stops:
                comm.synchronize()
        if self.signals.received:
            self._release()

    def after_train(self) -> None:
        """Complete the checkpoint that is being written, however the training ends."""
        self.finish()
        self._thread.shutdown()
        self._release()

    def _release(self) -> None:
        if self._holds:
            self._holds = False
            self.signals.release()

    def finish(self, last: bool = False) -> None:
        """Wait until the checkpoint that is being written is complete, or has failed.

        Args:
            last: whether the training ends with it.

        Raises:
            ConfigError: the last one cannot be written.
        """
        if self._writing is None:
            return
        writing, self._writing = self._writing, None
        folder = Path(self.checkpointer.save_dir)
        try:
            writing.result()
        except OSError as error:
            newest = "none"
            with suppress(ConfigError):
                newest = last_checkpoint(folder).name
            self.record.error = f"{one_line(error)}; the newest checkpoint is {newest}"
            if last:
                raise ConfigError(f"{self.record.error}; make space, then continue with --resume") from error
            logger.warning("%s; the training continues", self.record.error)
            return
        self.record.error = None
        self._delete_old_ones(folder)

    def _save(self, name: str, stops: bool) -> None:
        self.finish()
        folder = Path(self.checkpointer.save_dir)
        if not folder.is_dir():
            logger.warning("%s has vanished; it is created anew", folder)
            self.restore_folder()
        entries = self.checkpointer.entries(iteration=self.trainer.iter)
        waits = stops
        if not stops:
            try:
                entries = snapshot(entries)
            except (MemoryError, RuntimeError):  # torch raises RuntimeError if memory is short
                logger.warning("No memory for a copy of the weights: the training waits for the disk")
                waits = True
        self._writing = self._thread.submit(self.checkpointer.write, name, entries)
        if waits:
            self.finish(last=name == FINAL)

    def _delete_old_ones(self, folder: Path) -> None:
        periodic = [file for file in folder.glob("model_*.pth") if re.fullmatch(r"model_\d{7,}", file.stem)]
        periodic.sort(key=lambda file: file.stat().st_mtime_ns, reverse=True)
        for file in periodic[self.max_to_keep :]:
            file.unlink()


def snapshot(entries: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of the entries of a checkpoint that later steps do not change.

    Args:
        entries: nested mappings and sequences; tensors on any device. Those that are the same memory, as
            tied weights, are one in the copy.

    Returns:
        Their copy, its tensors on the CPU.
    """
    tensors = list(_tensors(entries))
    copies: dict[Any, Tensor] = {}
    for tensor in tensors:
        if _place(tensor) not in copies:
            copies[_place(tensor)] = tensor.detach().to("cpu", copy=True)
    return copy.deepcopy(dict(entries), {id(tensor): copies[_place(tensor)] for tensor in tensors})


def _tensors(entries: Any) -> Iterator[Tensor]:
    if isinstance(entries, Tensor):
        yield entries
    elif isinstance(entries, Mapping | list | tuple):
        for value in entries.values() if isinstance(entries, Mapping) else entries:
            yield from _tensors(value)


def _place(tensor: Tensor) -> tuple[Any, ...]:
    """What tensors of the same values in the same memory have in common."""
    return tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype
