"""Lengths in hours become iterations by the time of the first steps."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.run_folders import read_record

from d2timm import ConfigError
from d2timm.config.build import build_model, instantiate
from d2timm.engine.budget import iterations_of
from d2timm.engine.process import run
from d2timm.engine.schedules import check_lengths

BOX = "faster_rcnn_timm.py"


def test_iterations_follow_from_the_time_of_a_step(tiny: Callable[..., Any], tmp_path: Path) -> None:
    cfg = tiny(BOX, tmp_path, "train.budget_hours=0.01", "train.max_iter=null")
    model, loader = build_model(cfg), instantiate(cfg.dataloader.train)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    iterations = iterations_of(cfg, model, loader)
    assert 30 <= iterations <= 36 / 0.005, "a step takes from 5 ms to 1 s"
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert loader.position == 0


@pytest.mark.slow
def test_a_run_trains_for_its_budget_and_keeps_the_length_when_it_continues(
    tiny: Callable[..., Any], tmp_path: Path
) -> None:
    options = ("train.budget_hours=0.001", "train.max_iter=null", "train.eval_period=0")
    run(tiny(BOX, tmp_path, *options, "train.pause_at=0.5"))
    paused = read_record(tmp_path)
    assert paused.iterations == math.ceil(paused.max_iter / 2)
    run(tiny(BOX, tmp_path, *options), resume=True)
    record = read_record(tmp_path)
    assert record.iterations == record.max_iter == paused.max_iter


@pytest.mark.parametrize("other", ["train.max_iter=100", "train.epochs=3"])
def test_two_lengths_are_an_error(tiny: Callable[..., Any], tmp_path: Path, other: str) -> None:
    key = other.partition("=")[0]
    with pytest.raises(ConfigError, match=rf"train\.budget_hours=1 and {key}"):
        check_lengths(tiny(BOX, tmp_path, "train.budget_hours=1", "train.max_iter=null", other).train)


def test_another_loader_is_an_error(tiny: Callable[..., Any], tmp_path: Path) -> None:
    cfg = tiny(BOX, tmp_path, "train.budget_hours=1", "train.max_iter=null")
    with pytest.raises(ConfigError, match=r"train\.budget_hours"):
        iterations_of(cfg, build_model(cfg), iter([]))
