"""Successive halving: many candidates are trained briefly, the better ones longer.

Jamieson and Talwalkar, https://arxiv.org/abs/1502.07943. Optuna decides which candidates are promoted; the
scores are read from the run folders.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from dataclasses import dataclass

from ..errors import ConfigError

__all__ = ["Plan", "plan_rounds", "promote"]


@dataclass(frozen=True)
class Plan:
    """The lengths of the rounds.

    Attributes:
        rounds: the iteration at which each round ends; the last is the length of the schedule.
        cost: iterations of all candidates together if none fails.
    """

    rounds: tuple[int, ...]
    cost: int


def plan_rounds(candidates: int, budget: int, factor: int = 2) -> Plan:
    """Choose the longest rounds that a budget allows.

    Each round ends ``factor`` times as late as the round before it and has one in ``factor`` of its
    candidates, which continue from where that round ended. The last round has fewer candidates than
    ``factor``.

    Args:
        candidates: number of candidates in the first round.
        budget: iterations of all candidates together.
        factor: >= 2.

    Raises:
        ConfigError: the budget does not allow one iteration per candidate in the first round.
    """
    remaining = [candidates]
    while remaining[-1] >= factor:
        remaining.append(remaining[-1] // factor)
    ends = [factor**i for i in range(len(remaining))]  # in units of the first round
    starts = [0, *ends[:-1]]
    cost = sum(n * (end - start) for n, end, start in zip(remaining, ends, starts, strict=True))
    unit = budget // cost
    if unit < 1:
        raise ConfigError(f"budget={budget}: {candidates} backbones need at least {cost} iterations")
    return Plan(tuple(unit * end for end in ends), unit * cost)


def promote(scores: Mapping[str, float], iterations: int, factor: int = 2) -> list[str]:
    """The candidates that Optuna's ``SuccessiveHalvingPruner`` lets continue after a round, the best first.

    The pruner compares a trial with those that reported their scores before it. A round ends when all
    candidates have a score, so the pruner is asked about each candidate as if it had reported last. The
    pruner promotes every candidate that ties with the lowest promoted score; of these, the first ones are
    kept, as many as the budget allows.

    Args:
        scores: candidate -> score; higher is better.
        iterations: the iteration at which the round ended.
        factor: one in ``factor`` candidates is promoted, but at least the best.
    """
    import optuna

    optuna.logging.set_verbosity(logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)  # of add_trials

    def new_study() -> optuna.Study:
        pruner = optuna.pruners.SuccessiveHalvingPruner(iterations, factor, 0)
        return optuna.create_study(direction="maximize", pruner=pruner)

    def is_pruned(study: optuna.Study, score: float) -> bool:
        trial = study.ask()
        trial.report(score, iterations)
        pruned = bool(trial.should_prune())
        study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        return pruned

    complete = new_study()
    for score in scores.values():
        is_pruned(complete, score)
    promoted = []
    for number, (name, score) in enumerate(scores.items()):
        others = new_study()
        others.add_trials([trial for trial in complete.trials if trial.number != number])
        if not is_pruned(others, score):
            promoted.append(name)
    return sorted(promoted, key=lambda name: -scores[name])[: max(1, len(scores) // factor)]
