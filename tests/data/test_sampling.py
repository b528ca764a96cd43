"""The order of the training images: all of them in each epoch, and the same from any batch on."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
import torch
from detectron2.utils import comm
from hypothesis import given
from hypothesis import strategies as st

from d2timm.data.sampling import Draw, TrainingBatches


def make(
    count: int = 7, batch_size: int = 2, seed: int = 0, repeats: list[float] | None = None
) -> TrainingBatches:
    landscape = [bool(number % 2) for number in range(count)]
    return TrainingBatches(landscape, batch_size, seed, torch.tensor(repeats) if repeats else None)


def first(batches: TrainingBatches, count: int, start: int = 0) -> list[list[Draw]]:
    return list(itertools.islice(batches.starting_at(start), count))


@given(st.integers(2, 12), st.integers(1, 4), st.integers(0, 2**31), st.integers(0, 40))
def test_batches_are_the_same_from_any_number_on(count: int, size: int, seed: int, start: int) -> None:
    batches = make(count, size, seed)
    assert first(batches, 5, start) == first(batches, start + 5)[start:]


@given(st.integers(1, 12), st.integers(0, 99))
def test_each_epoch_has_each_image_once_and_its_own_order(count: int, seed: int) -> None:
    draws = [draw for batch in first(make(count, 1, seed), 3 * count) for draw in batch]
    epochs = [[draw.image for draw in draws if draw.epoch == epoch] for epoch in range(3)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(count))] * 3
    assert len(set(draws)) == len(draws), "each draw has its own place"
    if count > 8:
        assert epochs[0] != epochs[1] != epochs[2]


def test_batches_have_one_orientation() -> None:
    for batch in first(make(9, 3), 40):
        assert len({draw.image % 2 for draw in batch}) == 1


@pytest.mark.parametrize("processes", [2, 3])
def test_processes_share_the_images(processes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = [draw for batch in first(make(12, 1), 36) for draw in batch]
    monkeypatch.setattr(comm, "get_world_size", lambda: processes)
    shares = []
    for rank in range(processes):
        monkeypatch.setattr(comm, "get_rank", lambda rank=rank: rank)
        shares += [draw for batch in first(make(12, 1), 36 // processes) for draw in batch]
    assert sorted(shares) == sorted(alone), "the order and the augmentation do not depend on their number"


def test_images_are_repeated_by_their_factor_on_average() -> None:
    draws = [draw.image for batch in first(make(2, 1, repeats=[1.0, 2.5]), 3500) for draw in batch]
    counts = Counter(draws)
    assert counts[1] / counts[0] == pytest.approx(2.5, rel=0.05)
