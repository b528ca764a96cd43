"""Lengths in epochs, and schedules of the learning rate."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.solver import LRMultiplier
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from d2timm import ConfigError
from d2timm.config.lazy import apply_overrides, get_config, load, root, save
from d2timm.engine.schedules import counts_epochs, images_per_step, in_iterations, one_cycle

MASK = "mask_rcnn_timm.py"
OPTIONS = sorted(path.stem for path in (root() / "common/lr_multiplier").glob("*.py"))


# Epochs


def compose(*overrides: str) -> Any:
    """The recipe on the embedded set, whose batches are 2 images."""
    return apply_overrides(get_config(MASK), ["data.name=shapes", *overrides])


@pytest.mark.parametrize(
    ("overrides", "images", "iterations"),
    [
        (["train.epochs=3"], 10, 15),
        (["train.epochs=3"], 11, 17),
        (["train.epochs=0.5"], 10, 3),
        (["train.epochs=0.001"], 10, 1),
        (["train.epochs=3", "train.accumulate=4"], 10, 4),
        (["train.epochs=12", "data.settings.shapes.batch_size=16"], 117266, 87950),
        (["train.epochs=3", "train.max_iter=null"], 10, 15),
    ],
)
def test_epochs_are_so_many_iterations(overrides: list[str], images: int, iterations: int) -> None:
    cfg = compose(*overrides)
    assert counts_epochs(cfg)
    in_iterations(cfg, images)
    assert (cfg.train.max_iter, cfg.train.epochs) == (iterations, None)
    assert OmegaConf.is_interpolation(cfg.train, "eval_period"), "not asked for"
    assert not counts_epochs(cfg)


@given(st.integers(1, 1000), st.integers(1, 64), st.integers(1, 8), st.floats(0.01, 50))
def test_as_many_images_as_the_epochs_have_and_no_step_more(
    images: int, batch: int, accumulate: int, epochs: float
) -> None:
    train = {"epochs": epochs, "eval_epochs": None, "max_iter": None, "accumulate": accumulate}
    cfg = OmegaConf.create({"train": train, "dataloader": {"train": {"total_batch_size": batch}}})
    in_iterations(cfg, images)
    step = images_per_step(cfg)
    assert step == batch * accumulate
    assert (cfg.train.max_iter - 1) * step < epochs * images <= cfg.train.max_iter * step


def test_evaluations_are_every_so_many_epochs() -> None:
    cfg = compose("train.eval_epochs=2", "data.settings.shapes.max_iter=77")
    in_iterations(cfg, 9)
    assert (cfg.train.eval_period, cfg.train.eval_epochs, cfg.train.max_iter) == (9, None, 77)


def test_without_epochs_nothing_changes() -> None:
    cfg = compose()
    assert not counts_epochs(cfg)
    before = OmegaConf.to_container(cfg, resolve=False)
    in_iterations(cfg, 10)
    assert OmegaConf.to_container(cfg, resolve=False) == before
    for key in ("epochs", "eval_epochs", "accumulate"):  # as in configs of earlier versions
        del cfg.train[key]
    in_iterations(cfg, 10)
    assert not counts_epochs(cfg)
    assert images_per_step(cfg) == 2


def test_what_was_turned_stays(tmp_path: Path) -> None:
    cfg = compose("train.epochs=3", "train.eval_epochs=1")
    for images in (10, 999):
        in_iterations(cfg, images)
        assert (cfg.train.max_iter, cfg.train.eval_period) == (15, 5)
    save(cfg, tmp_path / "config.yaml")
    longer = apply_overrides(load(tmp_path / "config.yaml"), ["train.epochs=6", "train.max_iter=null"])
    in_iterations(longer, 10)
    assert longer.train.max_iter == 30


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["train.epochs=3", "train.max_iter=9"], "train.epochs=3 and train.max_iter=9 both say how long"),
        (["train.eval_epochs=1", "train.eval_period=9"], "train.eval_epochs=1 and train.eval_period=9 both"),
        (["train.epochs=0"], "train.epochs=0: epochs, > 0"),
        (["train.eval_epochs=-1"], "train.eval_epochs=-1: epochs, > 0"),
    ],
)
def test_lengths_that_are_none_or_two(overrides: list[str], told: str) -> None:
    with pytest.raises(ConfigError) as error:
        in_iterations(compose(*overrides), 10)
    assert str(error.value).startswith(told)
    assert "\n" not in str(error.value)


# The learning rate


def rates(multiplier: Any, iterations: int) -> list[float]:
    """What a learning rate of 1 becomes, in each iteration."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = LRMultiplier(optimizer, multiplier, iterations)
    told = []
    for _ in range(iterations):
        told.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return told


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_is_a_schedule(option: str) -> None:
    """Of any length; up first, down at the end, never past the learning rate."""
    cfg = compose()
    cfg.lr_multiplier = LazyConfig.load(str(root() / f"common/lr_multiplier/{option}.py"), "lr_multiplier")
    for iterations in (20, 150):
        told = rates(instantiate(cfg.lr_multiplier), iterations)
        assert all(0 <= rate <= 1 + 1e-9 for rate in told)
        peak = told.index(max(told))
        assert max(told) >= 0.9
        assert told[: peak + 1] == sorted(told[: peak + 1])
        assert told[peak:] == sorted(told[peak:], reverse=True)
        assert told[0] < 0.1
        assert told[-1] < 0.1


def test_one_cycle_is_that_of_torch() -> None:
    iterations = 2000
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1.0, iterations, cycle_momentum=False)
    expected = []
    for _ in range(iterations):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        theirs.step()
    # torch's reaches its ends an iteration earlier
    assert rates(one_cycle(), iterations) == pytest.approx(expected, abs=2 * math.pi / iterations)
    assert one_cycle()(0.0) == pytest.approx(expected[0])
    assert one_cycle()(1.0) == pytest.approx(expected[-1])


def test_one_cycle_goes_where_it_is_told() -> None:
    cycle = one_cycle(rise=0.25, start=0.1, end=0.01)
    assert [cycle(where) for where in (0.0, 0.125, 0.25, 0.625, 1.0)] == pytest.approx(
        [0.1, 0.55, 1.0, 0.505, 0.01]
    )
    steps = [abs(cycle(a / 1000) - cycle(b / 1000)) for a, b in itertools.pairwise(range(1001))]
    assert max(steps) < 0.01, "without a jump"


@pytest.mark.parametrize("rise", [0, 1, 1.5, -0.1])
def test_rise_that_leaves_nothing_to_fall(rise: float) -> None:
    with pytest.raises(ConfigError, match=f"lr_multiplier.rise={rise}: 0 < rise < 1"):
        one_cycle(rise)
