"""Hooks of the training loop: progress, resumable schedules, averaged weights and early stops."""

from __future__ import annotations

import logging
import math
import statistics
import time
from collections.abc import Callable, Mapping
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
from ..utils.text import one_line

__all__ = [
    "AverageWeights",
    "Evaluate",
    "RecordProgress",
    "Schedule",
    "StopBelowMedian",
    "StopEarly",
    "Stopped",
]

logger = logging.getLogger(__name__)

#: Fields of a record that the evaluations of a run have set
EVALUATED = ("metric", "metrics", "scores", "best_score", "best_iterations")


class RecordProgress(HookBase):
    """Updates iterations and seconds of a record, and writes it every ``period`` iterations."""

    def __init__(self, record: Record, folder: Path, period: int) -> None:
        self.record, self.folder, self.period = record, folder, period

    def before_step(self) -> None:
        """Start the clock; evaluations, which run between steps, are not counted."""
        self.start = time.monotonic()

    def after_step(self) -> None:
        """Count the iteration and its seconds."""
        self.record.iterations = self.trainer.iter + 1
        self.record.train_seconds += time.monotonic() - self.start
        if self.record.iterations % self.period == 0:
            self.record.measure_memory()
            self.record.try_write(self.folder)

    def state_dict(self) -> dict[str, Any]:
        """Return the evaluations of the run so far."""
        return {name: getattr(self.record, name) for name in EVALUATED}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore them, unless the record has the one that follows the checkpoint, and all before it."""
        done = self.trainer.iter + 1
        complete = bool(self.record.scores) and self.record.scores[-1][0] == done
        if self.record.metric == state["metric"] and not complete:
            for name, value in state.items():
                setattr(self.record, name, value)


class Stopped(BaseException):
    """Raised to end the training loop early; its text is the reason.

    It is not an Exception, because detectron2's loop logs exceptions as errors before it raises them again.
    """


class Schedule(hooks.LRScheduler):
    """detectron2's learning rate hook, for a run that may train only a part of its schedule.

    Args:
        multiplier: factor of the learning rates over the full schedule.
        max_iter: length of the full schedule in iterations.
    """

    def __init__(self, multiplier: ParamScheduler, max_iter: int) -> None:
        super().__init__(scheduler=multiplier)
        self.max_iter = max_iter

    def before_train(self) -> None:
        """Create the scheduler, starting at the first iteration of this part."""
        if isinstance(self.scheduler, ParamScheduler):
            self._scheduler: Any = LRMultiplier(
                self.trainer.optimizer, self.scheduler, self.max_iter, last_iter=self.trainer.iter - 1
            )
        super().before_train()


class AverageWeights(HookBase):
    """Updates an exponential moving average of a model's weights after each step.

    It is timm's ``ModelEmaV3``: parameters and floating-point buffers are averaged, integer buffers are
    copied. The average starts with the weights after the first step. Register this hook before those that
    save and evaluate.

    Args:
        model: the model without its DistributedDataParallel wrapper; each process keeps the same average.
        decay: weight of the previous average, per step; 0 <= decay < 1.
        warmup: whether the decay increases from 0 to ``decay``, as 1 - (1 + steps) ** (-2 / 3).
    """

    def __init__(self, model: nn.Module, decay: float, warmup: bool) -> None:
        self.model = model
        self.average = ModelEmaV3(model, decay=decay, use_warmup=warmup)

    @property
    def averaged(self) -> nn.Module:
        """The model with the averaged weights, in eval mode."""
        module: nn.Module = self.average.module
        return module

    def after_step(self) -> None:
        """Update the average."""
        self.average.update(self.model, self.trainer.iter + 1)


class Evaluate(HookBase):
    """Evaluates periodically, and after the last iteration of a training that was not interrupted.

    Args:
        period: iterations between evaluations; 0: only at the end.
        evaluate: returns task -> metric -> value, in the first process.
    """

    def __init__(self, period: int, evaluate: Callable[[], Mapping[str, Mapping[str, float | None]]]) -> None:
        self.period, self.evaluate = period, evaluate

    def after_step(self) -> None:
        """Evaluate if it is time; at the end, ``after_train`` does."""
        done = self.trainer.iter + 1
        if self.period and done % self.period == 0 and done < self.trainer.max_iter:
            self._evaluate()

    def after_train(self) -> None:
        """Evaluate if all iterations are trained."""
        if self.trainer.iter >= self.trainer.max_iter:
            self._evaluate()

    def _evaluate(self) -> None:
        try:
            results = self.evaluate()
        except OSError as error:  # as on a full disk
            if self.trainer.iter >= self.trainer.max_iter:
                raise
            logger.warning("This evaluation is left out: %s", one_line(error))
            results = {}
        for task, metrics in results.items():
            for name, value in metrics.items():
                number = math.nan if value is None else value
                self.trainer.storage.put_scalar(f"{task}/{name}", number, smoothing_hint=False)
        comm.synchronize()  # all processes start the next iteration together


class StopAfterEvaluation(HookBase):
    """Base class of hooks that may stop a run after an evaluation.

    Register it after the hook that evaluates.

    Args:
        record: the record of this run; in the first process its scores are up to date.
        threshold: see the subclass; 0 disables the hook.
        period: iterations between evaluations.
    """

    def __init__(self, record: Record, threshold: int, period: int) -> None:
        self.record, self.threshold, self.period = record, threshold, period

    def after_step(self) -> None:
        """Check after each evaluation whether to stop; all processes stop together."""
        done = self.trainer.iter + 1
        if not self.threshold or not self.period or done % self.period or done >= self.trainer.max_iter:
            return
        reason = comm.all_gather(self._reason(done) if comm.is_main_process() else None)[0]
        if reason:
            raise Stopped(f"stopped at iteration {done} of {self.record.max_iter}: {reason}")

    def _reason(self, done: int) -> str | None:
        """Why the run stops after so many iterations; None to continue. Called in the first process only."""
        raise NotImplementedError


class StopEarly(StopAfterEvaluation):
    """Stops a run whose best score has not improved for ``threshold`` evaluations in a row.

    The scores are in the record of the run, so a resumed run continues to count.
    """

    def _reason(self, done: int) -> str | None:
        # not those of evaluations in between, where the run has been paused
        scores = [entry for entry in self.record.scores if entry[0] % self.period == 0]
        if not scores:
            return None
        iteration, best = max(scores, key=lambda entry: entry[1])  # the first of equal scores
        since = sum(later > iteration for later, _ in scores)
        if since < self.threshold:
            return None
        return (
            f"{self.record.metric} has not exceeded {best:.2f}, reached at iteration {iteration}, "
            f"in {self.threshold} evaluations"
        )


class StopBelowMedian(StopAfterEvaluation):
    """Stops a run whose score is below the median of finished runs at the same iteration.

    This is the median stopping rule (Golovin et al., Google Vizier, KDD 2017, section 3.2.2). The other runs
    are read from their run folders, whichever process trained them.

    Args:
        record: as in ``StopAfterEvaluation``.
        folder: the folder of this run; the other runs are in the same parent folder.
        threshold: number of finished runs required for a comparison; 0 disables the hook.
        period: as in ``StopAfterEvaluation``.
    """

    def __init__(self, record: Record, folder: Path, threshold: int, period: int) -> None:
        super().__init__(record, threshold, period)
        self.folder = folder

    def _reason(self, done: int) -> str | None:
        score = dict(self.record.scores).get(done)
        others = finished_scores(self.folder.parent, done)
        if score is None or len(others) < self.threshold:
            return None
        median = statistics.median(others)
        if score >= median:
            return None
        return (
            f"{self.record.metric} {score:.2f} is below {median:.2f}, "
            f"the median of {len(others)} finished runs"
        )


def finished_scores(sweep: Path, iterations: int) -> list[float]:
    """Return the scores, after so many iterations, of the runs of a sweep that finished their schedule."""
    done = [run.record for run in read_runs(sweep) if run.status == "done"]
    return [score for record in done for at, score in record.scores if at == iterations]
