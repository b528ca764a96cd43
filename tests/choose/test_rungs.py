"""How the time of a choice is divided among rungs and finals."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from d2timm.choose.finals import LR_FACTORS, SHORTER, WINNER, plan_finals
from d2timm.choose.rungs import COOL_DOWN, FINALISTS, plan_rungs, rung_sizes


@pytest.mark.parametrize(
    ("candidates", "sizes"),
    [(2, []), (3, []), (4, [4]), (8, [8, 4]), (17, [17, 9, 5]), (6, [6]), (7, [7, 4])],
)
def test_each_rung_has_the_better_half(candidates: int, sizes: list[int]) -> None:
    assert rung_sizes(candidates) == sizes


@given(st.integers(FINALISTS + 1, 100), st.floats(60, 1e5), st.floats(0, 60))
def test_rungs_fill_their_time(candidates: int, seconds: float, overhead: float) -> None:
    sizes = rung_sizes(candidates)
    ends = plan_rungs(sizes, seconds, overhead)
    spent, before = 0.0, 0.0
    for size, end in zip(sizes, ends, strict=True):
        spent += size * (end - before + COOL_DOWN * end + overhead)
        before = end
    assert spent == pytest.approx(seconds)
    assert all(two == pytest.approx(2 * one) for one, two in itertools.pairwise(ends))


@given(st.integers(FINALISTS + 1, 50), st.floats(600, 1e5))
def test_a_plan_is_kept_if_all_goes_as_planned(candidates: int, seconds: float) -> None:
    sizes = rung_sizes(candidates)
    assume(len(sizes) > 1)
    ends = plan_rungs(sizes, seconds, 5.0)
    assume(ends[0] > 0)
    rest = seconds - sizes[0] * ((1 + COOL_DOWN) * ends[0] + 5.0)
    assert plan_rungs(sizes[1:], rest, 5.0, ends[0])[0] == pytest.approx(ends[1])


@given(
    st.integers(1, 5),
    st.floats(30, 1e5),
    st.floats(0, 60),
    st.floats(1, 1000),
    st.floats(1, 1e4),
    st.integers(1, 8),
)
def test_finals_fit_into_their_time(
    candidates: int, usable: float, overhead: float, wanted: float, most: float, lanes: int
) -> None:
    design = plan_finals(candidates, usable, overhead, wanted, most, lanes)
    if design is None:
        runs = min(candidates, 2)
        assert usable < (runs + 1) * overhead + (runs + WINNER) * min(wanted, most)
        return
    assert design.finalists <= candidates
    assert SHORTER * min(wanted, most) <= design.seconds <= most
    runs = -(-design.finalists * (design.seeds + design.grid * len(LR_FACTORS)) // lanes)
    assert runs * (design.seconds + overhead) <= usable


def test_more_time_gives_more_runs() -> None:
    designs = [plan_finals(3, usable, 10, 60, 3600) for usable in (100, 350, 520, 900, 2000)]
    assert [design and (design.finalists, design.seeds, design.grid) for design in designs] == [
        None,
        (2, 2, False),
        (2, 3, False),
        (3, 3, False),
        (3, 3, True),
    ]
