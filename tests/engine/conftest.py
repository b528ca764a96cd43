"""Runs that the tests of the engine share; tests must not change their folders."""

from __future__ import annotations

import functools
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from d2timm.engine.process import run

MASK = "mask_rcnn_timm.py"
RECIPES = ["faster_rcnn_timm.py", MASK]
AVERAGED = ["train.ema.enabled=True", "train.ema.decay=0.9", "train.ema.warmup=False", "optimizer.lr=0.01"]


@pytest.fixture(scope="session")
def train_once(
    tiny: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Namespace]:
    """Train a recipe for four iterations, at the first call: recipe, folder and cfg."""

    @functools.cache
    def train(recipe: str) -> Namespace:
        folder = tmp_path_factory.mktemp("trained") / "run"
        cfg = tiny(recipe, folder)
        run(cfg)
        return Namespace(recipe=recipe, folder=folder, cfg=cfg)

    return train


@pytest.fixture(scope="session", params=RECIPES)
def trained(request: pytest.FixtureRequest, train_once: Callable[[str], Namespace]) -> Namespace:
    """A run of each recipe."""
    return train_once(request.param)


@pytest.fixture(scope="session")
def trained_masks(train_once: Callable[[str], Namespace]) -> Namespace:
    """A run of Mask R-CNN."""
    return train_once(MASK)


@pytest.fixture(scope="session")
def averaged_overrides() -> list[str]:
    """Averaged weights that lag behind so far that their scores differ from those of the trained weights."""
    return AVERAGED


@pytest.fixture(scope="session")
def averaged(
    tiny: Callable[..., Any], averaged_overrides: list[str], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The folder of a run of Mask R-CNN with averaged weights."""
    folder = tmp_path_factory.mktemp("averaged") / "run"
    run(tiny(MASK, folder, *averaged_overrides))
    return folder
