"""Successive halving: many candidates are trained briefly, the better ones longer.

Jamieson and Talwalkar, https://arxiv.org/abs/1502.07943. The scores are read from the run folders.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..errors import ConfigError

__all__ = ["Plan", "plan_rounds", "promote"]


@dataclass(frozen=True)
class Plan:
    """The lengths of the rounds.

    Attributes:
        rounds: where each round ends; the last is the length of the schedule.
        cost: of all candidates together if none fails.
    """

    rounds: tuple[int, ...]
    cost: int


def plan_rounds(
    candidates: int, budget: int, factor: int = 2, cool_down: float = 0.0, unit: str = "iterations"
) -> Plan:
    """Choose the longest rounds that a budget allows.

    Each round ends ``factor`` times as late as the round before it and has one in ``factor`` of its
    candidates, which continue from where that round ended. The last round has fewer candidates than
    ``factor``.

    Args:
        candidates: number of candidates in the first round.
        budget: of all candidates together.
        factor: >= 2.
        cool_down: what a candidate trains in addition at the end of each round but the last, as a share of
            its training so far.
        unit: of the budget, for errors.

    Raises:
        ConfigError: the budget does not allow one unit per candidate in the first round.
    """
    remaining = [candidates]
    while remaining[-1] >= factor:
        remaining.append(remaining[-1] // factor)

    def cost(first: int) -> int:
        ends = [first * factor**i for i in range(len(remaining))]
        additions = [round(cool_down * end) for end in ends[:-1]] + [0]
        parts = zip(remaining, ends, [0, *ends[:-1]], additions, strict=True)
        return sum(number * (end - start + addition) for number, end, start, addition in parts)

    first = budget * 1000 // max(cost(1000), 1)  # but for rounded cool-downs
    while first and cost(first) > budget:
        first -= 1
    while cost(first + 1) <= budget:
        first += 1
    if first < 1:
        raise ConfigError(f"budget={budget}: {candidates} backbones need at least {cost(1)} {unit}")
    return Plan(tuple(first * factor**i for i in range(len(remaining))), cost(first))


def promote(scores: Mapping[str, float], factor: int = 2) -> Sequence[str]:
    """The candidates that continue after a round, the best first.

    Args:
        scores: candidate -> score; higher is better. Of equal scores, the first ones continue.
        factor: one in ``factor`` candidates is promoted, but at least the best.
    """
    return sorted(scores, key=lambda name: -scores[name])[: max(1, len(scores) // factor)]
