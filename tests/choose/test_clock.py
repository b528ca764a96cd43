"""Deadlines of a choice."""

from __future__ import annotations

from datetime import datetime

import pytest

from d2timm import ConfigError
from d2timm.choose.clock import Clock, find_deadline, in_words

NOON = datetime(2026, 3, 5, 12, 0).timestamp()


@pytest.mark.parametrize(
    ("by", "expected"),
    [
        ("22:00", datetime(2026, 3, 5, 22, 0)),
        ("7:30", datetime(2026, 3, 6, 7, 30)),
        ("12:00", datetime(2026, 3, 6, 12, 0)),
        ("2026-03-08T01:00", datetime(2026, 3, 8, 1, 0)),
    ],
)
def test_a_time_is_the_next_one(by: str, expected: datetime) -> None:
    assert find_deadline(by, None, NOON) == expected.timestamp()


def test_hours_count_from_the_beginning() -> None:
    assert find_deadline(None, 1.5, NOON) == NOON + 5400


@pytest.mark.parametrize(
    ("by", "hours", "named"),
    [
        (None, None, "--by"),
        ("22:00", 8.0, "not both"),
        (None, 0.001, "--hours 0.001"),
        (None, -1.0, "--hours -1"),
        (None, float("nan"), "--hours nan"),
        ("25:00", None, "--by 25:00"),
        ("tonight", None, "--by tonight"),
        ("12:00:30", None, "--by 12:00:30"),
        ("2020-01-01T00:00", None, "--by 2020-01-01T00:00"),
    ],
)
def test_other_times_are_errors(by: str | None, hours: float | None, named: str) -> None:
    with pytest.raises(ConfigError) as caught:
        find_deadline(by, hours, NOON)
    assert named in str(caught.value)


def test_a_part_of_the_time_is_kept_free() -> None:
    reserves = [Clock(0, seconds).reserve for seconds in (60, 1800, 10**6)]
    assert reserves == [15, 90, 180]


@pytest.mark.parametrize(("seconds", "text"), [(40, "40 s"), (1500, "25 min"), (9000, "2.5 h")])
def test_times_in_words(seconds: float, text: str) -> None:
    assert in_words(seconds) == text
