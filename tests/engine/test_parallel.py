"""How processes exchange gradients."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.utils import comm
from omegaconf import OmegaConf
from torch import nn

from d2timm.engine.launch import launch
from d2timm.engine.parallel import distribute
from d2timm.engine.preflight import check_training
from d2timm.engine.trainer import Trainer
from d2timm.errors import ConfigError

from .test_launch import TWO


def exchange(compressed: bool) -> None:
    """The gradient of the weight is the mean of the images, 1.001 and 2.001; bf16 knows 1.0 and 2.0 only."""
    ddp: dict[str, Any] = {"fp16_compression": False, "bf16_compression": compressed}
    train = OmegaConf.create({"device": "cpu", "ddp": ddp})
    model = nn.Linear(1, 1, bias=False)
    parallel, whole, kind = distribute(train, model)
    assert whole is model
    assert kind is Trainer
    parallel(torch.tensor([[1.001 + comm.get_rank()]])).sum().backward()
    expected = 1.5 if compressed else 1.501
    assert model.weight.grad is not None
    assert model.weight.grad.item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("compressed", [False, True])
def test_gradients_are_reduced_in_bf16_when_asked(compressed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    launch(exchange, TWO, compressed)


def test_one_process_exchanges_nothing() -> None:
    model = nn.Linear(1, 1)
    train = OmegaConf.create({"device": "cpu", "ddp": {"bf16_compression": True}})
    assert distribute(train, model) == (model, model, Trainer)


def test_gradients_are_compressed_in_one_way(tiny: Callable[..., Any], tmp_path: Path) -> None:
    both = ("train.ddp.fp16_compression=True", "train.ddp.bf16_compression=True")
    with pytest.raises(ConfigError, match=r"train\.ddp\.fp16_compression and bf16_compression"):
        check_training(tiny("faster_rcnn_timm.py", tmp_path, *both).train)
