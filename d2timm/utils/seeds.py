"""Random numbers that depend on where they are used, and not on what was drawn before.

A training that continues after an interruption draws the same numbers as one without it, because each image
and each step seeds the generators anew.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

__all__ = ["derive_seed", "seed_generators", "seeded"]


def derive_seed(*parts: int) -> int:
    """Return a seed of 32 bits for a place, such as (seed of the run, iteration, process); parts are >= 0."""
    return int(np.random.SeedSequence(parts).generate_state(1)[0])


def seed_generators(*parts: int) -> None:
    """Seed the generators of Python, NumPy and torch, that of torch on all devices."""
    seed = derive_seed(*parts)
    random.seed(seed)
    np.random.seed(seed)  # detectron2's augmentations use this generator
    torch.manual_seed(seed)


@contextmanager
def seeded(*parts: int) -> Iterator[None]:
    """Seed the generators of Python, NumPy and torch on the CPU, and restore them afterwards."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    seed = derive_seed(*parts)
    random.seed(seed)
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
