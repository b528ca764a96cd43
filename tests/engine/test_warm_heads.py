"""Neck and heads of a trained detector under another backbone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from d2timm import ConfigError
from d2timm.config.build import build_model
from d2timm.engine.preflight import check, check_training
from d2timm.engine.process import run
from d2timm.engine.schedules import start_of
from d2timm.engine.warm_heads import load_heads

MASK = "mask_rcnn_timm.py"
NAME = "model.backbone.bottom_up.model_name"


@pytest.fixture
def compose(tiny: Callable[..., Any], tmp_path: Path) -> Callable[..., Any]:
    return lambda *more: tiny(MASK, tmp_path / "run", f"{NAME}=test_resnet", *more)


def weights(file: Path) -> dict[str, torch.Tensor]:
    return dict(torch.load(file, weights_only=True)["model"])


def test_everything_but_the_laterals_is_taken(tiny_run: Path, compose: Callable[..., Any]) -> None:
    source = weights(tiny_run / "model_final.pth")
    model = build_model(compose())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    result = load_heads(str(tiny_run), model)
    own = model.state_dict()
    taken = [name for name in own if name in source and own[name].shape == source[name].shape]
    taken = [name for name in taken if not name.startswith("backbone.bottom_up")]
    assert result["taken"] == len(taken) > 20
    assert all(torch.equal(own[name], source[name]) for name in taken)
    assert all(torch.equal(own[name], before[name]) for name in own if name not in taken)
    assert result["new"]
    assert {name.rpartition(".")[0].rpartition("_")[2][:-1] for name in result["new"]} == {"lateral"}


def test_other_classes_start_anew(tiny_run: Path, compose: Callable[..., Any]) -> None:
    model = build_model(compose("model.roi_heads.num_classes=7"))
    new = load_heads(str(tiny_run / "model_final.pth"), model)["new"]
    assert "roi_heads.box_predictor.cls_score.weight" in new
    assert "roi_heads.box_head.fc1.weight" not in new


def test_run_trains_only_what_is_new_at_first(
    tiny_run: Path, compose: Callable[..., Any], tmp_path: Path
) -> None:
    source = weights(tiny_run / "model_final.pth")
    more = [f"train.init_heads={tiny_run}", "train.fit_laterals=2", "train.max_iter=4"]
    cfg = compose(*more, "train.pause_at=2", "optimizer.lr=0.01", "data.settings.custom.warmup=0.0")
    run(cfg)
    folder = tmp_path / "run"
    heads = json.loads((folder / "result.json").read_text())["heads"]
    assert heads["source"] == str(tiny_run)
    halfway = weights(folder / "model_final.pth")
    same = [name for name in source if not name.startswith("backbone.bottom_up") and name not in heads["new"]]
    assert all(torch.equal(halfway[name], source[name]) for name in same)
    cfg.train.pause_at = None
    run(cfg, resume=True)
    end = weights(folder / "model_final.pth")
    assert not torch.equal(end["roi_heads.box_head.fc1.weight"], source["roi_heads.box_head.fc1.weight"])
    assert json.loads((folder / "result.json").read_text())["heads"] == heads


def test_resumed_run_is_as_one_that_was_not(
    tiny_run: Path, compose: Callable[..., Any], tmp_path: Path
) -> None:
    more = [f"train.init_heads={tiny_run}", "train.fit_laterals=2", "train.max_iter=3"]
    run(compose(*more, f"train.output_dir={tmp_path}/one"))
    cfg = compose(*more, f"train.output_dir={tmp_path}/two", "train.pause_at=1")
    run(cfg)
    cfg.train.pause_at = None
    run(cfg, resume=True)
    one, two = (weights(tmp_path / name / "model_final.pth") for name in ("one", "two"))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_mistakes(compose: Callable[..., Any], tmp_path: Path) -> None:
    cfg = compose(f"train.init_heads={tmp_path}/none.pth")
    with pytest.raises(ConfigError, match=r"none\.pth"):
        check(cfg, ["train"])
    torch.save({"model": {"x": torch.zeros(2)}}, tmp_path / "other.pth")
    cfg = compose(f"train.init_heads={tmp_path}/other.pth")
    with pytest.raises(ConfigError, match=r"other\.pth"):
        check(cfg, ["train"])
    with pytest.raises(ConfigError, match=r"train\.init_heads"):
        check_training(compose("train.fit_laterals=3").train)


def test_length_is_that_of_a_pretrained_detector(tiny_run: Path, compose: Callable[..., Any]) -> None:
    heads = f"train.init_heads={tiny_run}"
    assert start_of(compose(heads)) == "nothing"
    assert start_of(compose(heads, "model.backbone.bottom_up.pretrained=True")) == "detector"
