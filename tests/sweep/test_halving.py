"""Successive halving: rounds stay within the budget, and the best candidates are promoted."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from d2timm import ConfigError
from d2timm.sweep.halving import plan_rounds, promote

COUNTS = st.integers(1, 300)
FACTORS = st.integers(2, 5)
DISTINCT = st.lists(st.floats(0, 100), min_size=1, max_size=12, unique=True)
TIED = st.lists(st.sampled_from([0.0, 0.5, 7.0]), min_size=1, max_size=12)


def cost(candidates: int, rounds: tuple[int, ...], factor: int) -> int:
    """Iterations of all candidates, counted round by round; promoted candidates continue."""
    total, before = 0, 0
    for end in rounds:
        total += candidates * (end - before)
        before = end
        candidates = max(1, candidates // factor)
    return total


@given(COUNTS, st.integers(1, 10**6), FACTORS)
def test_rounds_are_the_longest_within_the_budget(candidates: int, budget: int, factor: int) -> None:
    try:
        plan = plan_rounds(candidates, budget, factor)
    except ConfigError as error:
        needed = int(str(error).rpartition("at least ")[2].split()[0])
        assert budget < needed
        assert plan_rounds(candidates, needed, factor).rounds[0] == 1
        return
    rounds = plan.rounds
    assert all(b == factor * a for a, b in itertools.pairwise(rounds))
    assert plan.cost == cost(candidates, rounds, factor) <= budget
    last = candidates // factor ** (len(rounds) - 1)
    assert 1 <= last < factor, "the last round has too few candidates for another"
    longer = tuple(end + factor**i for i, end in enumerate(rounds))
    assert cost(candidates, longer, factor) > budget, "longer rounds exceed the budget"


def test_known_plans() -> None:
    assert plan_rounds(4, 50).rounds == (6, 12, 24)
    assert plan_rounds(4, 50).cost == 48
    assert plan_rounds(1, 7).rounds == (7,)
    assert plan_rounds(9, 210, 3).rounds == (10, 30, 90)


@pytest.mark.parametrize(("candidates", "needed"), [(1, 1), (4, 8), (100, 376)])
def test_budget_that_is_too_small_is_an_error(candidates: int, needed: int) -> None:
    assert plan_rounds(candidates, needed).rounds[0] == 1
    with pytest.raises(ConfigError, match=rf"^budget={needed - 1}: .*\b{needed} iterations"):
        plan_rounds(candidates, needed - 1)


@given(DISTINCT, FACTORS)
def test_the_best_are_promoted_in_their_order(values: list[float], factor: int) -> None:
    scores = {f"model{i}": value for i, value in enumerate(values)}
    best = sorted(scores, key=lambda name: -scores[name])
    assert promote(scores, factor) == best[: max(1, len(best) // factor)]


@given(TIED, FACTORS)
def test_equal_scores_do_not_exceed_the_budget(values: list[float], factor: int) -> None:
    """Such as zeros after a first round that is too short."""
    scores = {f"model{i}": value for i, value in enumerate(values)}
    promoted = promote(scores, factor)
    assert len(promoted) == len(set(promoted)) == max(1, len(values) // factor)
    others = [scores[name] for name in scores if name not in promoted]
    assert not others or min(scores[name] for name in promoted) >= max(others)
    assert max(values) == scores[promoted[0]]


def test_of_equal_scores_the_earlier_are_promoted() -> None:
    assert promote({"a": 0.0, "b": 0.0, "c": 0.0, "d": 0.0}) == ["a", "b"]
    assert promote({"a": 1.0, "b": 3.0, "c": 1.0, "d": 0.0}) == ["b", "a"]


def test_one_candidate_is_promoted() -> None:
    assert promote({"only": 0.0}) == ["only"]
    assert promote({}) == []


@given(DISTINCT.filter(lambda values: len(values) > 1), st.randoms(use_true_random=False))
def test_order_of_the_candidates_does_not_matter(values: list[float], random: object) -> None:
    scores = {f"model{i}": value for i, value in enumerate(values)}
    names = list(scores)
    random.shuffle(names)  # type: ignore[attr-defined]
    assert promote({name: scores[name] for name in names}, 3) == promote(scores, 3)


@given(COUNTS, st.integers(1, 10**6), FACTORS, st.floats(0, 1))
def test_cool_downs_are_part_of_the_budget(
    candidates: int, budget: int, factor: int, cool_down: float
) -> None:
    try:
        plan = plan_rounds(candidates, budget, factor, cool_down)
    except ConfigError:
        return
    left, additions = candidates, 0
    for end in plan.rounds[:-1]:
        additions += left * round(cool_down * end)
        left //= factor
    assert plan.cost == cost(candidates, plan.rounds, factor) + additions <= budget
