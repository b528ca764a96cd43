"""Numbers, flags and ids as annotation tools write them."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from d2timm.data.checks.values import Ids, as_flag, as_number, as_numbers, is_plain_id


@pytest.mark.parametrize(
    ("value", "number"),
    [
        *((3, 3), (2.5, 2.5), ("2.5", 2.5), (" 7 ", 7), ("1e2", 100), (10**20, 1e20)),
        *((None, None), (True, None), ("", None), ("1,5", None), ("NaN", None), ([], None), ({}, None)),
        *((math.nan, None), (math.inf, None), (10**400, None)),
    ],
)
def test_number(value: Any, number: float | None) -> None:
    assert as_number(value) == number


@pytest.mark.parametrize(
    ("values", "numbers"),
    [
        *(([1, 2.5], [1, 2.5]), (["1", 2], [1, 2]), ([], [])),
        *((None, None), ("12", None), ({"x": 1}, None), ([1, None], None), ([True], None), ([[1]], None)),
        *(([math.nan], None), ([math.inf], None), ([1e8], None), (["1e8"], None), ([10**400, 1], None)),
    ],
)
def test_numbers_that_may_be_coordinates(values: Any, numbers: list[float] | None) -> None:
    assert as_numbers(values) == numbers


@pytest.mark.parametrize(
    ("value", "flag"),
    [
        *(
            (None, False),
            (0, False),
            (0.0, False),
            ("0", False),
            ("false", False),
            ("No", False),
            ("", False),
        ),
        *((True, True), (1, True), (2, True), (-1, True), ("1", True), (" True ", True), ("yes", True)),
        *(("maybe", None), ([], None), ({}, None), (math.nan, None)),
    ],
)
def test_flag(value: Any, flag: bool | None) -> None:
    assert as_flag(value) is flag


@pytest.mark.parametrize("value", ["1", 1.0, True, None, 2**53, -(2**60)])
def test_id_that_is_not_plain(value: Any) -> None:
    assert not is_plain_id(value)
    assert is_plain_id(2**53 - 1)


@pytest.mark.parametrize(
    ("ids", "value", "position"),
    [
        *(([5, 7], 7, 1), ([5, 7], "7", 1), ([5, 7], 7.0, 1), ([5, 7], " 7 ", 1), ([5, 7], "7.0", 1)),
        *((["a", "b"], "b", 1), (["5", "7"], 7, 1), (["005", "007"], 7, 1), ([1.5, 2.5], "2.5", 1)),
        *(([2**70, 2**70 + 1], str(2**70 + 1), 1), ([1, "1"], "1", 1), ([1, "1"], 1, 0)),
        *(
            ([5, 7], 8, None),
            ([5, 7], None, None),
            ([5, 7], [5], None),
            ([5, 7], {}, None),
            ([5, 7], "x", None),
        ),
        *((["1", "01"], 1, None), ([5, 7], math.inf, None)),
    ],
)
def test_position_of_an_id(ids: list[Any], value: Any, position: int | None) -> None:
    assert Ids(ids).find(value) == position


@given(st.lists(st.integers() | st.text(max_size=3) | st.floats(allow_nan=False), unique=True, max_size=8))
def test_each_id_is_found(ids: list[Any]) -> None:
    assert [Ids(ids).find(value) for value in ids] == list(range(len(ids)))
