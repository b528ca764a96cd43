"""Successive halving: many candidates a little, the better ones longer, and so on.

Jamieson and Talwalkar, https://arxiv.org/abs/1502.07943. Which candidates go on is Optuna's decision; what
each has scored is in its run folder.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from dataclasses import dataclass

from ..errors import ConfigError

__all__ = ["Plan", "plan", "promoted"]


@dataclass(frozen=True)
class Plan:
    """How far candidates are trained.

    Attributes:
        rounds: iterations after which each round ends; the last is the whole schedule.
        cost: iterations of all candidates together, where none fails.
    """

    rounds: tuple[int, ...]
    cost: int


def plan(candidates: int, budget: int, factor: int = 2) -> Plan:
    """The longest schedules that a budget allows.

    A round is ``factor`` times as long as the one before it, for one in ``factor`` of its candidates; what
    has been trained is not trained again. The last round has one candidate, or few.

    Args:
        candidates: in the first round.
        budget: iterations of all candidates together.
        factor: >= 2.

    Raises:
        ConfigError: a budget of less than an iteration for each.
    """
    left = [candidates]
    while left[-1] >= factor:
        left.append(left[-1] // factor)
    ends = [factor**i for i in range(len(left))]  # in units of the first round
    starts = [0, *ends]
    cost = sum(n * (end - start) for n, end, start in zip(left, ends, starts, strict=False))
    unit = budget // cost
    if unit < 1:
        raise ConfigError(f"budget={budget}: {candidates} backbones need at least {cost} iterations")
    return Plan(tuple(unit * end for end in ends), unit * cost)


def promoted(scores: Mapping[str, float], iterations: int, factor: int = 2) -> list[str]:
    """The candidates that Optuna's ``SuccessiveHalvingPruner`` lets go on after a round, the best first.

    That pruner decides on a trial among those that have told their scores before. A round ends when all have
    told theirs, so each is asked about as the last one. It lets all go on that have the lowest score that
    suffices: of these the earlier ones do, no more than the budget is for.

    Args:
        scores: candidate -> what it has scored; higher is better.
        iterations: at the end of the round.
        factor: one in so many goes on, but always the best.
    """
    import optuna

    optuna.logging.set_verbosity(logging.WARNING)

    def study() -> optuna.Study:
        pruner = optuna.pruners.SuccessiveHalvingPruner(iterations, factor, 0)
        return optuna.create_study(direction="maximize", pruner=pruner)

    def tell(of: optuna.Study, score: float) -> bool:
        trial = of.ask()
        trial.report(score, iterations)
        stops = trial.should_prune()
        of.tell(trial, state=optuna.trial.TrialState.PRUNED)
        return bool(stops)

    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)  # of add_trials
    everyone = study()
    for score in scores.values():
        tell(everyone, score)
    going_on = []
    for number, (name, score) in enumerate(scores.items()):
        others = study()
        others.add_trials([trial for trial in everyone.trials if trial.number != number])
        if not tell(others, score):
            going_on.append(name)
    return sorted(going_on, key=lambda name: -scores[name])[: max(1, len(scores) // factor)]
