"""Images per second of the detector alone, after it has warmed up."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

from d2timm.evaluation.speed import WARM_UP, Speed


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(time, "perf_counter", lambda: clock.now)
    return clock


def call(speed: Speed, clock: SimpleNamespace, images: int, seconds: float = 0.5) -> None:
    """A call that takes some seconds, on the clock of the test."""
    with speed.call(images):
        clock.now += seconds


def test_time_between_calls_is_not_counted(clock: SimpleNamespace) -> None:
    speed = Speed()
    for _ in range(WARM_UP):
        call(speed, clock, 1)
    for images in (3, 1, 2):
        call(speed, clock, images)
        clock.now += 60  # reading images and computing metrics
    assert speed.images_per_second == 6 / 1.5


def test_first_calls_are_not_counted(clock: SimpleNamespace) -> None:
    speed = Speed()
    for _ in range(WARM_UP):
        call(speed, clock, 2, seconds=30.0)
    call(speed, clock, 2, seconds=0.25)
    assert speed.images_per_second == 8


def test_all_calls_count_if_there_are_fewer_than_the_warm_up(clock: SimpleNamespace) -> None:
    speed = Speed()
    call(speed, clock, 2)
    call(speed, clock, 1)
    assert speed.images_per_second == 3


def test_rate_without_calls_is_none() -> None:
    assert Speed().images_per_second is None


def test_rate_without_elapsed_time_is_none(clock: SimpleNamespace) -> None:
    speed = Speed()
    call(speed, clock, 1, seconds=0.0)
    assert speed.images_per_second is None


def test_failed_call_is_not_counted(clock: SimpleNamespace) -> None:
    speed = Speed()
    with pytest.raises(ValueError, match="unreadable"), speed.call(5):
        raise ValueError("unreadable")
    call(speed, clock, 2)
    assert speed.images_per_second == 4
