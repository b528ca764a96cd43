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
from d2timm.config.lazy import get_config, load, save
from d2timm.config.overrides import apply_overrides
from d2timm.engine.schedules import (
    counts_epochs,
    images_per_step,
    in_iterations,
    one_cycle,
    start_of,
    usual_epochs,
)
from d2timm.utils.files import resource_folder

MASK = "mask_rcnn_timm.py"
SCHEDULES = resource_folder("lazy_configs") / "common/lr_multiplier"


# Epochs


def compose(*overrides: str) -> Any:
    """The recipe on the embedded dataset, whose batches have 2 images."""
    return apply_overrides(get_config(MASK), ["data.name=shapes", *overrides])


def convert(cfg: Any, images: int) -> None:
    in_iterations(cfg.train, images, images_per_step(cfg))


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
def test_epochs_are_converted_to_iterations(overrides: list[str], images: int, iterations: int) -> None:
    cfg = compose(*overrides)
    assert counts_epochs(cfg.train)
    convert(cfg, images)
    assert (cfg.train.max_iter, cfg.train.epochs) == (iterations, None)
    assert OmegaConf.is_interpolation(cfg.train, "eval_period"), "eval_epochs is not set"
    assert not counts_epochs(cfg.train)


@given(st.integers(1, 1000), st.integers(1, 64), st.integers(1, 8), st.floats(0.01, 50))
def test_iterations_cover_the_epochs_without_an_extra_step(
    images: int, batch: int, accumulate: int, epochs: float
) -> None:
    train = {"epochs": epochs, "eval_epochs": None, "max_iter": None, "accumulate": accumulate}
    cfg = OmegaConf.create({"train": train, "dataloader": {"train": {"total_batch_size": batch}}})
    convert(cfg, images)
    step = images_per_step(cfg)
    assert step == batch * accumulate
    assert (cfg.train.max_iter - 1) * step < epochs * images <= cfg.train.max_iter * step


@pytest.mark.parametrize(
    ("images", "start", "epochs"),
    [
        *((images, "detector", 30) for images in (1, 12, 1000)),
        (4472, "detector", 23),  # half way, in the logarithm
        *((images, "detector", 16) for images in (20_000, 118_000)),
        (1000, "backbone", 75),
        (1000, "nothing", 225),
    ],
)
def test_usual_length(images: int, start: Any, epochs: float) -> None:
    assert usual_epochs(images, start) == pytest.approx(epochs, abs=0.05)


def test_usual_length_is_converted() -> None:
    cfg = compose("train.epochs=auto")
    assert start_of(cfg) == "nothing"
    in_iterations(cfg.train, 10, images_per_step(cfg), "detector")
    assert (cfg.train.max_iter, cfg.train.epochs) == (150, None)
    assert start_of(compose("train.init_checkpoint=some.pth")) == "detector"
    assert start_of(compose("data.settings.shapes.pretrained=True")) == "backbone"


def test_evaluation_period_in_epochs() -> None:
    cfg = compose("train.eval_epochs=2", "data.settings.shapes.max_iter=77")
    convert(cfg, 9)
    assert (cfg.train.eval_period, cfg.train.eval_epochs, cfg.train.max_iter) == (9, None, 77)


def test_without_epochs_nothing_changes() -> None:
    cfg = compose()
    assert not counts_epochs(cfg.train)
    before = OmegaConf.to_container(cfg, resolve=False)
    convert(cfg, 10)
    assert OmegaConf.to_container(cfg, resolve=False) == before
    for key in ("epochs", "eval_epochs", "accumulate"):  # configs of earlier versions lack these keys
        del cfg.train[key]
    convert(cfg, 10)
    assert not counts_epochs(cfg.train)
    assert images_per_step(cfg) == 2


def test_converted_lengths_do_not_change(tmp_path: Path) -> None:
    cfg = compose("train.epochs=3", "train.eval_epochs=1")
    for images in (10, 999):
        convert(cfg, images)
        assert (cfg.train.max_iter, cfg.train.eval_period) == (15, 5)
    save(cfg, tmp_path / "config.yaml")
    longer = apply_overrides(load(tmp_path / "config.yaml"), ["train.epochs=6", "train.max_iter=null"])
    convert(longer, 10)
    assert longer.train.max_iter == 30


@pytest.mark.parametrize(
    ("overrides", "facts"),
    [
        (["train.epochs=3", "train.max_iter=9"], ["train.epochs=3", "train.max_iter=9"]),
        (["train.eval_epochs=1", "train.eval_period=9"], ["train.eval_epochs=1", "train.eval_period=9"]),
        (["train.max_iter=null"], ["train.epochs", "train.max_iter"]),
    ],
)
def test_invalid_or_duplicate_lengths_are_rejected(overrides: list[str], facts: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        convert(compose(*overrides), 10)
    assert all(fact in str(error.value) for fact in facts)
    assert "\n" not in str(error.value)


# The learning rate


def rates(multiplier: Any, iterations: int) -> list[float]:
    """The learning rate in each iteration, if the base learning rate is 1."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = LRMultiplier(optimizer, multiplier, iterations)
    rates = []
    for _ in range(iterations):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return rates


@pytest.mark.parametrize("option", sorted(path.stem for path in SCHEDULES.glob("*.py")))
def test_every_option_is_a_schedule(option: str) -> None:
    """For any length the rate rises, then falls, and never exceeds the learning rate."""
    cfg = compose()
    cfg.lr_multiplier = LazyConfig.load(str(SCHEDULES / f"{option}.py"), "lr_multiplier")
    for iterations in (20, 150):
        factors = rates(instantiate(cfg.lr_multiplier), iterations)
        assert all(0 <= rate <= 1 + 1e-9 for rate in factors)
        peak = factors.index(max(factors))
        assert max(factors) >= 0.9
        assert factors[: peak + 1] == sorted(factors[: peak + 1])
        assert factors[peak:] == sorted(factors[peak:], reverse=True)
        assert factors[0] < 0.1
        assert factors[-1] < 0.1


def test_one_cycle_matches_torch() -> None:
    iterations = 2000
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    reference = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1.0, iterations, cycle_momentum=False)
    expected = []
    for _ in range(iterations):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        reference.step()
    # torch reaches both ends one iteration earlier
    assert rates(one_cycle(), iterations) == pytest.approx(expected, abs=2 * math.pi / iterations)
    assert one_cycle()(0.0) == pytest.approx(expected[0])
    assert one_cycle()(1.0) == pytest.approx(expected[-1])


def test_one_cycle_follows_its_arguments() -> None:
    cycle = one_cycle(rise=0.25, start=0.1, end=0.01)
    assert [cycle(where) for where in (0.0, 0.125, 0.25, 0.625, 1.0)] == pytest.approx(
        [0.1, 0.55, 1.0, 0.505, 0.01]
    )
    steps = [abs(cycle(a / 1000) - cycle(b / 1000)) for a, b in itertools.pairwise(range(1001))]
    assert max(steps) < 0.01, "it is continuous"


@pytest.mark.parametrize("rise", [0, 1, 1.5, -0.1])
def test_rise_out_of_range_is_rejected(rise: float) -> None:
    with pytest.raises(ConfigError, match=rf"lr_multiplier\.rise={rise}: .*0 < rise < 1"):
        one_cycle(rise)
