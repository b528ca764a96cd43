"""Hooks of the training loop: a record, a schedule in parts, averaged weights, an end before its end."""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any

from detectron2.engine import HookBase, hooks
from detectron2.solver import LRMultiplier
from detectron2.utils import comm
from fvcore.common.param_scheduler import ParamScheduler
from timm.utils import ModelEmaV3
from torch import nn

from ..runs.record import Record
from ..runs.status import read_runs

__all__ = ["AverageWeights", "RecordProgress", "Schedule", "StopBelowMedian", "StopEarly", "Stopped"]


class RecordProgress(HookBase):
    """Keeps a record's iterations and seconds, and writes it every ``period`` iterations."""

    def __init__(self, record: Record, folder: Path, period: int) -> None:
        self.record, self.folder, self.period = record, folder, period

    def before_step(self) -> None:
        """Start the clock; evaluation, between steps, does not count."""
        self.start = time.monotonic()

    def after_step(self) -> None:
        """Count an iteration."""
        self.record.iterations = self.trainer.iter + 1
        self.record.train_seconds += time.monotonic() - self.start
        if self.record.iterations % self.period == 0:
            self.record.measure_memory()
            self.record.write(self.folder)


class Stopped(BaseException):
    """Ends the training loop, with the reason.

    Not an Exception: detectron2's loop logs those as errors before it hands them on.
    """


class Schedule(hooks.LRScheduler):
    """detectron2's hook, for a schedule that is longer than what is trained at a time.

    Args:
        multiplier: of the learning rates, over the whole schedule.
        max_iter: length of the whole schedule in iterations.
    """

    def __init__(self, multiplier: ParamScheduler, max_iter: int) -> None:
        super().__init__(scheduler=multiplier)
        self.max_iter = max_iter

    def before_train(self) -> None:
        """Make the scheduler, as of the iteration that comes first."""
        if isinstance(self.scheduler, ParamScheduler):
            self._scheduler: Any = LRMultiplier(
                self.trainer.optimizer, self.scheduler, self.max_iter, last_iter=self.trainer.iter - 1
            )
        super().before_train()


class AverageWeights(HookBase):
    """Keeps an exponential moving average of a model's weights, as it is after each step.

    timm's ``ModelEmaV3``: parameters and floating-point buffers are averaged, counts are copied. The first
    step's weights begin the average. Comes before the hooks that save and evaluate.

    Args:
        model: not wrapped for several processes, each of which keeps the same average.
        decay: of what was, a step; 0 <= decay < 1.
        warmup: whether the decay rises from 0 to that, as 1 - (1 + steps) ** (-2 / 3).
    """

    def __init__(self, model: nn.Module, decay: float, warmup: bool) -> None:
        self.model = model
        self.average = ModelEmaV3(model, decay=decay, use_warmup=warmup)

    @property
    def averaged(self) -> nn.Module:
        """A model with the averaged weights, in eval mode."""
        module: nn.Module = self.average.module
        return module

    def after_step(self) -> None:
        """Take the new weights in."""
        self.average.update(self.model, self.trainer.iter + 1)


class StopAfterEvaluation(HookBase):
    """Ends a run for a reason that an evaluation gives; comes after the hook that evaluates.

    Args:
        record: of this run, in its first process; its scores are up to date.
        least: of what there must be for a reason; 0: never stop.
        period: iterations from one evaluation to the next.
    """

    def __init__(self, record: Record, least: int, period: int) -> None:
        self.record, self.least, self.period = record, least, period

    def after_step(self) -> None:
        """Look for a reason after each evaluation; all processes stop together."""
        done = self.trainer.iter + 1
        if not self.least or not self.period or done % self.period or done >= self.trainer.max_iter:
            return
        reason = comm.all_gather(self._reason(done) if comm.is_main_process() else None)[0]
        if reason:
            raise Stopped(f"stopped at iteration {done} of {self.record.max_iter}: {reason}")

    def _reason(self, done: int) -> str | None:
        raise NotImplementedError


class StopEarly(StopAfterEvaluation):
    """Ends a run that has not become better for ``least`` evaluations in a row.

    What the evaluations of a run have scored is in its record, so a resumed run goes on counting.
    """

    def _reason(self, done: int) -> str | None:
        scores = [score for _, score in self.record.scores]
        best = max(scores, default=0.0)
        if not scores or len(scores) - 1 - scores.index(best) < self.least:
            return None
        at = self.record.scores[scores.index(best)][0]
        return (
            f"{self.least} evaluations in a row were no better than {self.record.metric} {best:.2f} "
            f"at iteration {at}"
        )


class StopBelowMedian(StopAfterEvaluation):
    """Ends a run whose score is below the median of the finished runs beside it, at the same iteration.

    The median stopping rule (Golovin et al., Google Vizier, KDD 2017, section 3.2.2). Neighbours are read
    from their run folders, whoever has started them.

    Args:
        record: as above.
        folder: of this run; those of the others lie in the same parent folder.
        least: finished runs that there must be; 0: never stop.
        period: as above.
    """

    def __init__(self, record: Record, folder: Path, least: int, period: int) -> None:
        super().__init__(record, least, period)
        self.folder = folder

    def _reason(self, done: int) -> str | None:
        mine = dict(self.record.scores).get(done)
        theirs = finished_scores(self.folder.parent, done)
        if mine is None or len(theirs) < self.least:
            return None
        median = statistics.median(theirs)
        if mine >= median:
            return None
        return (
            f"{self.record.metric} {mine:.2f} is below {median:.2f}, "
            f"the median of {len(theirs)} finished runs"
        )


def finished_scores(sweep: Path, iterations: int) -> list[float]:
    """What the runs of a sweep that have finished their schedule scored after so many iterations."""
    done = [run.record for run in read_runs(sweep) if run.status == "done"]
    return [score for record in done for at, score in record.scores if at == iterations]
