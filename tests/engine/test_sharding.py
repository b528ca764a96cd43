"""A sharded training is the same training; its checkpoints are those of any other run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from d2timm.config.build import build_on_meta
from d2timm.engine.launch import launch
from d2timm.engine.process import run
from d2timm.engine.sharding import check_sharding
from d2timm.errors import ConfigError

from .test_launch import TWO

Compose = Callable[..., Any]
RECIPE = "mask_rcnn_timm.py"
SHARD = "train.shard=True"


def run_each(cfgs: list[tuple[Any, bool]]) -> None:
    for cfg, resume in cfgs:
        run(cfg, resume=resume)


def losses(folder: Path) -> list[float]:
    lines = map(json.loads, (folder / "metrics.json").read_text().splitlines())
    return [line["total_loss"] for line in lines if "total_loss" in line]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    loaded: dict[str, torch.Tensor] = torch.load(folder / "model_final.pth", weights_only=True)["model"]
    return loaded


def assert_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor], **tolerance: float) -> None:
    assert list(one) == list(other)
    for name, x in one.items():
        torch.testing.assert_close(other[name], x, msg=name, **tolerance)


@pytest.mark.sampled("processes", every=2)
@pytest.mark.slow
@pytest.mark.parametrize("model_name", ["test_resnet", "test_vit"])
def test_two_processes_train_as_copies_would(
    tiny: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model_name: str
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    bottom_up = f"model.backbone.bottom_up.model_name={model_name}"

    def compose(name: str, *overrides: str) -> Any:
        return tiny(RECIPE, tmp_path / name, bottom_up, "train.accumulate=2", *overrides)

    runs = [
        (compose("copies"), False),
        (compose("shards", SHARD), False),
        (compose("resumed", SHARD, "train.pause_at=2"), False),
        (compose("resumed", SHARD), True),
        (compose("alone", SHARD, "train.pause_at=2"), False),
    ]
    launch(run_each, TWO, runs)
    run(compose("alone"), resume=True)
    assert len(losses(tmp_path / "copies")) == 4
    assert losses(tmp_path / "shards") == pytest.approx(losses(tmp_path / "copies"), rel=1e-3)
    assert_equal(weights(tmp_path / "copies"), weights(tmp_path / "shards"), rtol=1e-2, atol=1e-3)
    assert_equal(weights(tmp_path / "shards"), weights(tmp_path / "resumed"), rtol=0, atol=0)
    whole = torch.load(tmp_path / "alone" / "model_final.pth", weights_only=True)
    assert whole["trainer"]["optimizer"]["state"][0]["step"] == 4, "one process has continued"
    result = json.loads((tmp_path / "shards" / "result.json").read_text())
    assert result["status"] == "done"
    assert set(result["metrics"]) == {"bbox", "segm"}


@pytest.mark.parametrize(
    ("overrides", "processes", "match"),
    [
        ([], 1, "--num-gpus"),
        (["train.ema.enabled=True"], 2, r"train\.ema"),
        (["train.amp.enabled=True", "train.amp.precision=fp16"], 2, "bf16"),
        (["model.backbone.bottom_up.model_name=coat_tiny"], 2, "fixed_input_size"),
    ],
)
def test_what_needs_whole_weights_is_refused(
    tiny: Compose, tmp_path: Path, overrides: list[str], processes: int, match: str
) -> None:
    cfg = tiny(RECIPE, tmp_path, SHARD, *overrides)
    with pytest.raises(ConfigError, match=rf"train\.shard=True: .*{match}"):
        check_sharding(cfg, build_on_meta(cfg), processes)
