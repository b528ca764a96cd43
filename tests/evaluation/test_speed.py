"""Images a second: the detector alone, after it has warmed up."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from d2timm.evaluation.speed import WARM_UP, Speed


class Detector(nn.Module):
    """Takes so many seconds for each call, in time that the test makes."""

    def __init__(self, clock: SimpleNamespace) -> None:
        super().__init__()
        self.clock = clock
        self.seconds = 0.5

    def forward(self, images: list[Any]) -> list[Any]:
        self.clock.now += self.seconds
        return images


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(time, "perf_counter", lambda: clock.now)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    return clock


def hooks(model: nn.Module) -> int:
    return len(model._forward_hooks) + len(model._forward_pre_hooks)


def test_images_are_counted_and_what_lies_between_calls_is_not(clock: SimpleNamespace) -> None:
    model = Detector(clock)
    with Speed(model) as speed:
        for _ in range(WARM_UP):
            model([1])
        for images in ([1, 2, 3], [1], [1, 2]):
            model(images)
            clock.now += 60  # reading the next ones, scoring these
    assert speed.images_per_second == 6 / 1.5


def test_slow_first_calls_are_left_out(clock: SimpleNamespace) -> None:
    model = Detector(clock)
    with Speed(model) as speed:
        model.seconds = 30.0
        for _ in range(WARM_UP):
            model([1, 2])
        model.seconds = 0.25
        model([1, 2])
    assert speed.images_per_second == 8


def test_fewer_calls_than_warm_up_all_count(clock: SimpleNamespace) -> None:
    model = Detector(clock)
    with Speed(model) as speed:
        model([1, 2])
        model([1])
    assert speed.images_per_second == 3


def test_no_call_is_no_rate(clock: SimpleNamespace) -> None:
    with Speed(Detector(clock)) as speed:
        pass
    assert speed.images_per_second is None


def test_clock_that_does_not_move_is_no_rate(clock: SimpleNamespace) -> None:
    model = Detector(clock)
    model.seconds = 0.0
    with Speed(model) as speed:
        model([1])
    assert speed.images_per_second is None


def test_hooks_are_gone_afterwards(clock: SimpleNamespace) -> None:
    model = Detector(clock)
    with Speed(model) as speed:
        assert hooks(model) == 2
        model([1])
    assert hooks(model) == 0
    model([1])
    assert len(speed.calls) == 1


def test_hooks_are_gone_after_an_error(clock: SimpleNamespace) -> None:
    model = Detector(clock)
    with pytest.raises(ValueError, match="unreadable"), Speed(model):
        raise ValueError("unreadable")
    assert hooks(model) == 0


def test_call_that_fails_does_not_count(clock: SimpleNamespace) -> None:
    model = Detector(clock)
    with Speed(model) as speed:
        with pytest.raises(TypeError):
            model()
        model([1, 2])
    assert speed.images_per_second == 4
