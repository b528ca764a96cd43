"""Checks before a run: every mistake is found before any file is created."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from d2timm import ConfigError
from d2timm.engine.preflight import check_machine, check_training

MASK = "mask_rcnn_timm.py"


@pytest.mark.parametrize(
    ("overrides", "facts"),
    [
        (["train.epochs=3", "train.max_iter=9"], ["train.epochs=3", "train.max_iter=9"]),
        (["train.accumulate=0"], ["train.accumulate=0", ">= 1"]),
        (["train.accumulate=1.5"], ["train.accumulate=1.5"]),
        (["train.reference_batch_size=0"], ["train.reference_batch_size=0", ">= 1"]),
        (["train.amp.precision=fp8"], ["train.amp.precision=fp8", "fp16, bf16"]),
        (["train.amp.enabled=True"], ["train.amp.enabled=True", "train.amp.enabled=False"]),
        (["train.ema.enabled=True", "train.ema.decay=1"], ["train.ema.decay=1", ">= 0 and < 1"]),
        (["train.early_stop=2", "train.eval_period=0"], ["train.early_stop=2", "train.eval_period"]),
        (["train.metric=AP"], ["train.metric=AP", "bbox/AP"]),
        (["train.metric=bbox/"], ["train.metric=bbox/", "bbox/AP"]),
        (["train.writers=[wandbb]"], ["'wandbb'", "did you mean wandb?", "wandb, mlflow"]),
        (["optimizer.opt=adamww"], ["optimizer.opt=adamww", "did you mean adamw"]),
        (
            ["optimizer.opt=sgd", "optimizer.betas=[0.9,0.99]"],
            ["optimizer.betas=(0.9, 0.99)", "sgd takes lr"],
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistake_is_found_before_any_file_is_created(
    overrides: list[str], facts: list[str], tiny: Callable[..., Any], tmp_path: Path
) -> None:
    cfg = tiny(MASK, tmp_path / "run", *overrides)
    with pytest.raises(ConfigError) as error:
        check_machine(cfg, processes=1)
    for fact in facts:
        assert fact in str(error.value)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["train.amp.enabled=True", "train.amp.precision=bf16"],
        ["train.ema.enabled=True", "train.early_stop=2"],
        ["train.early_stop=2", "data.settings.custom.eval_period=0", "train.eval_epochs=1"],
        [f"~train.{key}" for key in ("accumulate", "ema", "early_stop", "writers", "metric", "epochs")],
    ],
    ids=" ".join,
)
def test_valid_options_pass(overrides: list[str], tiny: Callable[..., Any], tmp_path: Path) -> None:
    check_training(tiny(MASK, tmp_path, *overrides).train)


@pytest.mark.parametrize("supported", [True, False])
def test_bf16_needs_a_gpu_that_supports_it(
    supported: bool, tiny: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: supported)
    cfg = tiny(MASK, tmp_path, "train.device=cuda", "train.amp.enabled=True", "train.amp.precision=bf16")
    if supported:
        check_training(cfg.train)
    else:
        with pytest.raises(ConfigError, match=r"bf16.* use train\.amp\.precision=fp16"):
            check_training(cfg.train)


def test_synchronized_norms_on_the_cpu_need_a_single_process(
    tiny: Callable[..., Any], tmp_path: Path
) -> None:
    synchronized = ("model.backbone.bottom_up.norm=SyncBN", "model.backbone.bottom_up.model_name=resnet10t")
    cfg = tiny(MASK, tmp_path, *synchronized)
    check_machine(cfg, processes=1)
    with pytest.raises(ConfigError, match=r"norm=SyncBN .*norm=keep"):
        check_machine(cfg, processes=2)
    check_machine(tiny(MASK, tmp_path), processes=2)
