"""Successive halving: rounds within the budget, and who goes on."""

from __future__ import annotations

import importlib.util
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from d2timm import ConfigError
from d2timm.sweep.halving import plan, promoted
from hydra_plugins.d2timm_screen import Screen

pytest.importorskip("optuna")

COUNTS = st.integers(1, 300)
FACTORS = st.integers(2, 5)
DISTINCT = st.lists(st.floats(0, 100), min_size=1, max_size=12, unique=True)
TIED = st.lists(st.sampled_from([0.0, 0.5, 7.0]), min_size=1, max_size=12)


def cost(candidates: int, rounds: tuple[int, ...], factor: int) -> int:
    """Iterations of all, counted one by one; those who go on are not trained again."""
    total, before = 0, 0
    for end in rounds:
        total += candidates * (end - before)
        before = end
        candidates = max(1, candidates // factor)
    return total


@given(COUNTS, st.integers(1, 10**6), FACTORS)
def test_rounds_grow_to_the_whole_schedule_within_the_budget(
    candidates: int, budget: int, factor: int
) -> None:
    try:
        made = plan(candidates, budget, factor)
    except ConfigError as refused:
        needed = int(str(refused).rpartition("at least ")[2].split()[0])
        assert budget < needed
        assert plan(candidates, needed, factor).rounds[0] == 1
        return
    rounds = made.rounds
    assert all(b == factor * a for a, b in itertools.pairwise(rounds))
    assert made.cost == cost(candidates, rounds, factor) <= budget
    last = candidates // factor ** (len(rounds) - 1)
    assert 1 <= last < factor, "the last round has one, or too few to choose among"
    longer = tuple(end + factor**i for i, end in enumerate(rounds))
    assert cost(candidates, longer, factor) > budget, "the longest that the budget allows"


def test_known_plans() -> None:
    assert plan(4, 50).rounds == (6, 12, 24)
    assert plan(4, 50).cost == 48
    assert plan(1, 7).rounds == (7,)
    assert plan(9, 210, 3).rounds == (10, 30, 90)


@pytest.mark.parametrize(("candidates", "needed"), [(1, 1), (4, 8), (100, 376)])
def test_budget_that_is_too_small_is_refused(candidates: int, needed: int) -> None:
    assert plan(candidates, needed).rounds[0] == 1
    with pytest.raises(ConfigError) as refused:
        plan(candidates, needed - 1)
    expected = f"budget={needed - 1}: {candidates} backbones need at least {needed} iterations"
    assert str(refused.value) == expected


@given(DISTINCT, FACTORS)
def test_the_best_go_on_in_their_order(values: list[float], factor: int) -> None:
    scores = {f"model{i}": value for i, value in enumerate(values)}
    best = sorted(scores, key=lambda name: -scores[name])
    assert promoted(scores, 10, factor) == best[: max(1, len(best) // factor)]


@given(TIED, FACTORS)
def test_equal_scores_do_not_exceed_the_budget(values: list[float], factor: int) -> None:
    """As after a first round too short for anyone to score."""
    scores = {f"model{i}": value for i, value in enumerate(values)}
    going_on = promoted(scores, 10, factor)
    assert len(going_on) == len(set(going_on)) == max(1, len(values) // factor)
    out = [scores[name] for name in scores if name not in going_on]
    assert not out or min(scores[name] for name in going_on) >= max(out)
    assert max(values) == scores[going_on[0]]


def test_of_equal_scores_the_earlier_goes_on() -> None:
    assert promoted({"a": 0.0, "b": 0.0, "c": 0.0, "d": 0.0}, 1) == ["a", "b"]
    assert promoted({"a": 1.0, "b": 3.0, "c": 1.0, "d": 0.0}, 1) == ["b", "a"]


def test_one_candidate_and_none() -> None:
    assert promoted({"only": 0.0}, 5) == ["only"]
    assert promoted({}, 5) == []


@given(DISTINCT.filter(lambda values: len(values) > 1), st.randoms(use_true_random=False))
def test_order_of_the_candidates_does_not_matter(values: list[float], random: object) -> None:
    scores = {f"model{i}": value for i, value in enumerate(values)}
    names = list(scores)
    random.shuffle(names)  # type: ignore[attr-defined]
    assert promoted({name: scores[name] for name in names}, 3) == promoted(scores, 3)


def test_screening_without_optuna_tells_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"\.\[screen\]"):
        Screen().sweep(["backbones=resnet18,resnet50"])
