"""The finals: complete trainings of the best candidates, with several seeds and learning rates."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter
from statistics import fmean

from ..runs.choice import Candidate, Final, Stage
from .clock import in_words
from .context import Context
from .parts import CHOOSE, TRAIN
from .rungs import COOL_DOWN, FEWEST_STEPS, MORE, SLACK, UndecidedError
from .trainings import Ended, Job

__all__ = ["NAME", "Design", "compete", "plan_finals"]

NAME = "finals"
LR_FACTORS = (0.4, 2.5)  # of the prior's learning rate, which are tried beside it
WINNER = 1.3  # times as long as a final, which the training of the chosen backbone takes at least
#: (finalists, seeds, whether other learning rates are tried), the best first
DESIGNS = ((3, 3, True), (3, 3, False), (2, 3, False), (3, 2, False), (2, 2, False), (2, 1, False))
SHORTER = 0.5  # of the last rung's length: finals that are shorter decide nothing
SMALL = DESIGNS[-2:]  # which may be shorter than the last rung


@dataclass(frozen=True)
class Design:
    """How the finals are held.

    Attributes:
        finalists: candidates that take part.
        seeds: runs of each of them with the best learning rate.
        grid: whether other learning rates are tried, with the first seed.
        seconds: of training of a run.
    """

    finalists: int
    seeds: int
    grid: bool
    seconds: float


def plan_finals(
    candidates: int, usable: float, overhead: float, wanted: float, most: float, lanes: int = 1
) -> Design | None:
    """Choose the design with the most runs that are long enough.

    Args:
        candidates: that could take part.
        usable: seconds for the finals and the training of the chosen backbone.
        overhead: seconds that a run takes beside its training.
        wanted: seconds of training that a run should have, if the time allows it.
        most: seconds of training that a run has at most.
        lanes: number of runs at the same time.

    Returns:
        The design; None if not even the smallest one has runs of half the wanted length.
    """
    for design in DESIGNS if candidates > 1 else [(1, 1, False)]:
        finalists, seeds, grid = min(design[0], candidates), *design[1:]
        runs = math.ceil(finalists * (seeds + grid * len(LR_FACTORS)) / lanes)
        seconds = (usable - (runs + 1) * overhead) / (runs + WINNER)
        if seconds > 0 and seconds >= min(wanted, most) * (1 if design not in SMALL else SHORTER):
            return Design(finalists, seeds, grid, min(seconds, most))
    return None


def compete(context: Context) -> None:
    """Hold the finals.

    Raises:
        UndecidedError: there is no time for them, and no rung was before.
    """
    if context.is_done(NAME):
        return
    choice = context.choice
    ranked = sorted(choice.remaining, key=attrgetter("score"), reverse=True)
    overhead = fmean(candidate.overhead for candidate in ranked)
    with context.stage(NAME, runs="finals") as stage:
        if not choice.finals:
            _plan(context, stage, ranked, overhead)
        for final in choice.finals:
            if final.score is None and not _has_failed(context, final):
                _train(context, stage, final)
        for candidate in ranked:
            _choose_rate(context, candidate)


def _plan(context: Context, stage: Stage, ranked: Sequence[Candidate], overhead: float) -> None:
    choice = context.choice
    steps = max((candidate.rungs[-1].seconds for candidate in ranked if candidate.rungs), default=0.0)
    wanted = max([(1 + COOL_DOWN) * steps, *(FEWEST_STEPS * candidate.pace for candidate in ranked)])
    most = max(context.usual_seconds(candidate) for candidate in ranked)
    lanes = context.trainings.lanes
    design = plan_finals(len(ranked), context.clock.usable, overhead, wanted, most, lanes)
    if design is None and not steps:
        runs = 2 * min(len(ranked), 2)
        missing = (runs + 1) * overhead + (runs + WINNER) * wanted - context.clock.usable
        raise UndecidedError(context, context.clock.total + missing)
    if design is None:
        context.note(stage, "No time is left for finals; the last rung decides.")
        return
    for candidate in ranked[design.finalists :]:
        context.drop(stage, candidate, "the time suffices for fewer finalists")
    choice.seeds = design.seeds
    choice.finals = [*_make_finals([c.name for c in ranked[: design.finalists]], design, context)]
    stage.planned = len(choice.finals) * (design.seconds + overhead)
    choice.final_seconds = design.seconds
    rates = ", and two more learning rates" if design.grid else ""
    context.note(
        stage,
        f"{design.finalists} finalists with {design.seeds} seeds{rates}: {len(choice.finals)} runs of "
        f"{in_words(design.seconds)} each.",
    )
    context.save()


def _make_finals(names: Sequence[str], design: Design, context: Context) -> Iterator[Final]:
    """The runs, those that decide most first."""
    folders = {candidate.name: candidate.folder for candidate in context.choice.candidates}
    factors = (1.0, *LR_FACTORS) if design.grid else (1.0,)
    plan = [(0, factor) for factor in factors] + [(seed, 1.0) for seed in range(1, design.seeds)]
    for seed, factor in plan:
        for name in names:
            trial = "" if factor == 1 else f"-lr{factor:g}"  # later seeds take the best of them
            yield Final(name, f"finals/{folders[name]}-seed{seed}{trial}", seed, factor)


def _has_failed(context: Context, final: Final) -> bool:
    return final.failed or any(c.name == final.name and c.dropped for c in context.choice.candidates)


def _train(context: Context, stage: Stage, final: Final) -> None:
    candidate = next(c for c in context.choice.candidates if c.name == final.name)
    if final.seed:
        _choose_rate(context, candidate)
        final.lr_factor = next(
            (f.lr_factor for f in context.choice.finals if f.name == final.name and f.counts), 1.0
        )
    seconds = context.choice.final_seconds
    expected = seconds + candidate.overhead
    if context.clock.usable < expected:
        final.failed = True
        context.note(stage, f"No time is left for {final.folder}.")
        return
    iterations = final.iterations or max(int(seconds / candidate.pace), 1)
    final.iterations = iterations
    context.save()
    overrides = (
        f"train.max_iter={iterations}",
        f"train.seed={final.seed}",
        f"optimizer.lr={candidate.learning_rate * final.lr_factor}",
        f"train.reference_batch_size={candidate.reference_batch_size or 'null'}",
        f"train.checkpointer.period={context.checkpoint_period(candidate)}",
    )
    limit = min(SLACK * expected + MORE, context.clock.usable)
    wanted = context.wanted[final.name]
    job = Job(wanted, context.folder / final.folder, TRAIN, CHOOSE, overrides, limit)
    context.trainings.run([job], lambda _, ended: _note(context, stage, final, ended))


def _note(context: Context, stage: Stage, final: Final, ended: Ended) -> None:
    if ended.reason:
        final.failed = True
        context.note(stage, f"{final.folder} failed: {ended.reason}")
    else:
        final.score = ended.record.score
        context.note(stage, f"{final.folder}: {ended.record.metric} {final.score:.1f}")
    context.save()


def _choose_rate(context: Context, candidate: Candidate) -> None:
    """Decide by which runs a finalist is judged: those with the learning rate of the best first one."""
    own = [f for f in context.choice.finals if f.name == candidate.name and f.score is not None]
    firsts = [final for final in own if final.seed == 0] or own  # the first seed may have failed
    if not firsts:
        return
    best = max(firsts, key=lambda final: (final.score or 0, -abs(math.log(final.lr_factor))))
    for final in own:
        final.counts = final.lr_factor == best.lr_factor
    context.save()
