"""Images per second of the detector alone, after it has warmed up."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from d2timm.evaluation.speed import WARM_UP, Speed


class Detector(nn.Module):
    """A model that takes ``seconds`` per call, on the clock of the test."""

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


def test_time_between_calls_is_not_counted(clock: SimpleNamespace) -> None:
    model = Detector(clock)
    with Speed(model) as speed:
        for _ in range(WARM_UP):
            model([1])
        for images in ([1, 2, 3], [1], [1, 2]):
            model(images)
            clock.now += 60  # reading images and computing metrics
    assert speed.images_per_second == 6 / 1.5


def test_first_calls_are_not_counted(clock: SimpleNamespace) -> None:
    model = Detector(clock)
    with Speed(model) as speed:
        model.seconds = 30.0
        for _ in range(WARM_UP):
            model([1, 2])
        model.seconds = 0.25
        model([1, 2])
    assert speed.images_per_second == 8


def test_all_calls_count_if_there_are_fewer_than_the_warm_up(clock: SimpleNamespace) -> None:
    model = Detector(clock)
    with Speed(model) as speed:
        model([1, 2])
        model([1])
    assert speed.images_per_second == 3


def test_rate_without_calls_is_none(clock: SimpleNamespace) -> None:
    with Speed(Detector(clock)) as speed:
        pass
    assert speed.images_per_second is None


def test_rate_without_elapsed_time_is_none(clock: SimpleNamespace) -> None:
    model = Detector(clock)
    model.seconds = 0.0
    with Speed(model) as speed:
        model([1])
    assert speed.images_per_second is None


def test_hooks_are_removed_afterwards(clock: SimpleNamespace) -> None:
    model = Detector(clock)
    with Speed(model) as speed:
        assert hooks(model) == 2
        model([1])
    assert hooks(model) == 0
    model([1])
    assert len(speed.calls) == 1


def test_hooks_are_removed_after_an_error(clock: SimpleNamespace) -> None:
    model = Detector(clock)
    with pytest.raises(ValueError, match="unreadable"), Speed(model):
        raise ValueError("unreadable")
    assert hooks(model) == 0


def test_failed_call_is_not_counted(clock: SimpleNamespace) -> None:
    model = Detector(clock)
    with Speed(model) as speed:
        with pytest.raises(TypeError):
            model()
        model([1, 2])
    assert speed.images_per_second == 4
