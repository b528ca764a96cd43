"""Rungs: all candidates train for the same seconds, the better half for longer, and so on.

Rungs are equal in wall time, because the same number of iterations would favour large backbones. The rate is
constant after its warm-up, and each rung ends with a cool-down of a copy of the weights, so that annealed
weights are compared and none in the middle of a schedule (Hägele et al., https://arxiv.org/abs/2405.18392).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import attrgetter
from statistics import fmean

from ..errors import ConfigError
from ..runs.choice import Candidate, Rung, Stage
from .clock import in_words
from .context import Context
from .parts import CHOOSE, TRAIN
from .trainings import Ended, Job

__all__ = [
    "FEWEST_STEPS",
    "FINALISTS",
    "NAME",
    "UndecidedError",
    "climb",
    "plan_rungs",
    "rung_sizes",
    "share_of_rungs",
]

NAME = "rungs"
FINALISTS = 3  # most candidates that are trained completely
FINALS = 11.0  # trainings that follow, each as long as the last rung: three seeds each, and the winner's
LEAST_SHARE = 0.2  # of the usable time, for the next rungs of a choice that was interrupted for long
COOL_DOWN = 0.2  # of the iterations so far
FEWEST_STEPS = 20  # in the first rung
GROWTH = 1.2  # a rung ends at least so many times as late as the one before
SLACK, MORE = 1.6, 30.0  # factor and seconds by which a training may exceed its expected time
CONSTANT = "{_target_: fvcore.common.param_scheduler.ConstantParamScheduler, value: 1.0}"


class UndecidedError(Exception):
    """Nothing can be decided in the time.

    Args:
        context: the choice.
        need: seconds that it would take.
    """

    def __init__(self, context: Context, need: float) -> None:
        names = [c.name for c in context.choice.remaining] or [
            c.name for c in context.choice.candidates if c.late
        ]
        super().__init__(
            f"Nothing can be decided in {in_words(context.clock.total)}: {', '.join(names)} need about "
            f"{in_words(need)}. Give more time, or smaller images."
        )


def climb(context: Context) -> None:
    """Train on all rungs until few candidates are left.

    Raises:
        UndecidedError: the time does not suffice for the first rung.
    """
    if context.is_done(NAME):
        return
    sizes = rung_sizes(len(context.choice.remaining))
    with context.stage(NAME, share_of_rungs(sizes) * context.clock.usable, "rungs") as stage:
        while len(context.choice.remaining) > FINALISTS:
            choice = context.choice
            if choice.decided == len(choice.plan) and not _plan_next(context, stage):
                break
            _train_rung(context, stage)
            _promote(context, stage)
            choice.decided = len(choice.plan)
            context.save()
        _keep_finalists(context, stage)


def rung_sizes(candidates: int) -> list[int]:
    """The number of candidates on each rung; of the last one, ``FINALISTS`` go on."""
    sizes = []
    while candidates > FINALISTS:
        sizes.append(candidates)
        candidates = max(math.ceil(candidates / 2), FINALISTS)
    return sizes


def plan_rungs(sizes: Sequence[int], seconds: float, overhead: float, before: float = 0.0) -> list[float]:
    """Where rungs end that fill a time, each twice as late as the one before.

    Args:
        sizes: the number of candidates on each rung, those that train at the same time counted once.
        seconds: of all candidates together, with what they take beside their training.
        overhead: seconds that a candidate takes on a rung beside its training.
        before: seconds of training of each candidate so far.

    Returns:
        Seconds of training of a candidate at the end of each rung, without cool-downs; negative if the time
        does not suffice.
    """
    free = seconds - overhead * sum(sizes) + before * sizes[0]
    first = free / _cost(sizes)
    return [first * 2**number for number in range(len(sizes))]


def _cost(sizes: Sequence[int]) -> float:
    """Seconds of training of all candidates, if the first rung ends after one."""
    ends = [2.0**number for number in range(len(sizes))]
    starts = [0.0, *ends[:-1]]
    weights = [end - start + COOL_DOWN * end for end, start in zip(ends, starts, strict=True)]
    return sum(size * weight for size, weight in zip(sizes, weights, strict=True))


def share_of_rungs(sizes: Sequence[int]) -> float:
    """The share of the time for the rungs, so that finals can be at least as long as the last one."""
    if not sizes:
        return 0.0
    last = 2.0 ** (len(sizes) - 1)
    return _cost(sizes) / (_cost(sizes) + FINALS * (1 + COOL_DOWN) * last)


def _plan_next(context: Context, stage: Stage) -> bool:
    """Plan the next rung; returns whether there is one."""
    choice, lanes = context.choice, context.trainings.lanes
    remaining = choice.remaining
    before = choice.plan[-1] if choice.plan else 0.0
    sizes = [math.ceil(size / lanes) for size in rung_sizes(len(remaining))]
    overhead = fmean(candidate.overhead for candidate in remaining)
    entered = [candidate for candidate in choice.candidates if candidate.dropped in ("", NAME)]
    share = share_of_rungs(rung_sizes(len(entered)))
    rest = stage.planned / share - stage.planned  # for what follows
    seconds = max(context.clock.usable - rest, LEAST_SHARE * context.clock.usable)
    end = plan_rungs(sizes, seconds, overhead, before)[0]
    end = min(end, max(context.usual_seconds(candidate) for candidate in remaining))
    if before and end < GROWTH * before:
        context.note(stage, "No time is left for another rung.")
        return False
    slowest = max(remaining, key=lambda candidate: candidate.pace)
    least = FEWEST_STEPS * slowest.pace
    if end < least:
        need = context.clock.total + (least - end) * _cost(sizes) / share
        _leave_out(context, stage, slowest, end, need)
        return len(choice.remaining) > FINALISTS and _plan_next(context, stage)
    choice.plan.append(end)
    context.save()
    return True


def _leave_out(context: Context, stage: Stage, slowest: Candidate, end: float, need: float) -> None:
    """Give a candidate up that would learn nothing on the next rung."""
    reason = f"{FEWEST_STEPS} steps take {in_words(FEWEST_STEPS * slowest.pace)}, "
    reason += f"and a rung has {in_words(max(end, 0))}; all candidates need about {in_words(need)}"
    context.drop(stage, slowest, reason)


def _train_rung(context: Context, stage: Stage) -> None:
    """Train the candidates that have not yet ended the rung."""
    number, end = len(context.choice.plan), context.choice.plan[-1]
    waiting = [candidate for candidate in context.choice.remaining if len(candidate.rungs) < number]
    context.note(stage, f"Rung {number}: {len(waiting)} candidates until {in_words(end)} of training each.")
    jobs = {}
    for candidate in waiting:
        iterations = max(int(end / candidate.pace), 1)
        if not candidate.schedule:
            total = end * 2 ** (len(rung_sizes(len(waiting))) - 1)
            candidate.schedule = max(int(2 * total / candidate.pace), 2 * iterations)
        candidate.schedule = max(candidate.schedule, iterations + 1)
        before = candidate.rungs[-1].iterations if candidate.rungs else 0
        steps = iterations * (1 + COOL_DOWN) - before
        limit = SLACK * steps * candidate.pace + 2 * candidate.overhead + MORE
        overrides = (
            f"train.max_iter={candidate.schedule}",
            f"train.pause_at={iterations}",
            f"train.cool_down={COOL_DOWN}",
            f"lr_multiplier.scheduler={CONSTANT}",
            f"train.checkpointer.period={context.checkpoint_period(candidate)}",
        )
        folder = context.folder / "rungs" / candidate.folder
        job = Job(
            context.wanted[candidate.name], folder, TRAIN, CHOOSE, overrides, min(limit, context.clock.usable)
        )
        jobs[job] = candidate
    context.save()
    context.trainings.run([*jobs], lambda job, ended: _note(context, stage, jobs[job], ended))


def _note(context: Context, stage: Stage, candidate: Candidate, ended: Ended) -> None:
    record = ended.record
    if ended.reason and ended.record.status == "interrupted" and candidate.rungs:
        candidate.rungs.append(candidate.rungs[-1])
        context.note(stage, f"{candidate.name} did not end the rung: its earlier score counts.")
    elif ended.reason:
        candidate.late = ended.record.status == "interrupted"
        context.drop(stage, candidate, ended.reason)
    else:
        earlier = candidate.rungs[-1] if candidate.rungs else Rung(0.0, 0, None)
        candidate.rungs.append(Rung(record.train_seconds, record.iterations, record.score))
        candidate.seconds_per_step = record.train_seconds / record.iterations
        trained = record.train_seconds - earlier.seconds
        cooling = COOL_DOWN * record.iterations * candidate.seconds_per_step
        candidate.overhead = max(ended.seconds - trained - cooling, 0.0)
        candidate.peak_memory_bytes = max(candidate.peak_memory_bytes, record.peak_memory_bytes)
        context.note(stage, f"{candidate.name}: {record.metric} {record.score:.1f}")
    context.save()


def _promote(context: Context, stage: Stage) -> None:
    """Give up the worse half, but for those that start slowly on the first rung."""
    choice = context.choice
    number = len(choice.plan)
    ranked = sorted(choice.remaining, key=attrgetter("score"), reverse=True)
    if not ranked:
        return
    kept = max(math.ceil(len(ranked) / 2), FINALISTS)
    for place, candidate in enumerate(ranked[kept:], kept + 1):
        if number == 1 and candidate.starts_slowly:
            candidate.rungs[-1].extended = True
            context.note(stage, f"{candidate.name} goes on, because backbones of its kind start slowly.")
            continue
        best = ranked[0].score
        context.drop(
            stage,
            candidate,
            f"{candidate.score:.1f} after {in_words(candidate.rungs[-1].seconds)} of training is place "
            f"{place} of {len(ranked)}; the best has {best:.1f}",
        )


def _keep_finalists(context: Context, stage: Stage) -> None:
    """Give up all but the best, if the time did not suffice for all rungs."""
    if not context.choice.remaining:
        late = [candidate for candidate in context.choice.candidates if candidate.late]
        if late:
            raise UndecidedError(context, 2 * context.clock.total)
        raise ConfigError("no candidate is left: the reasons are above, and in choice.json")
    ranked = sorted(context.choice.remaining, key=attrgetter("score"), reverse=True)
    for candidate in ranked[FINALISTS:]:
        context.drop(stage, candidate, f"{candidate.score:.1f} is not among the {FINALISTS} best")
