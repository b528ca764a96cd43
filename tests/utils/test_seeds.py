"""Random numbers follow from the place where they are used."""

from __future__ import annotations

import random

import numpy as np
import torch

from d2timm.utils.seeds import derive_seed, seed_generators, seeded


def numbers() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(()))


def test_seeds_of_places_differ() -> None:
    places = [(0, 0), (0, 1), (1, 0), (0, 0, 1), (1, 1), (2**40, 1)]
    assert len({derive_seed(*place) for place in places}) == len(places)
    assert all(0 <= derive_seed(*place) < 2**32 for place in places)


def test_equal_places_have_equal_numbers_whatever_came_before() -> None:
    seed_generators(3, 4)
    expected = numbers()
    numbers()
    with seeded(3, 4):
        assert numbers() == expected
    seed_generators(3, 5)
    assert not set(numbers()) & set(expected)


def test_generators_are_restored() -> None:
    seed_generators(1)
    numbers()
    following = (seed_generators(1), numbers(), numbers())[2]
    seed_generators(1)
    numbers()
    with seeded(9):
        numbers()
    assert numbers() == following
