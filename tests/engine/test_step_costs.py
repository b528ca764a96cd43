"""What a training step costs, in counts that no busy machine changes."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.utils.events import EventStorage
from torch.utils._python_dispatch import TorchDispatchMode

from d2timm.backbone.surgery import saved_bytes
from d2timm.config.build import build_model, instantiate
from d2timm.engine.optim import build_optimizer
from d2timm.engine.trainer import Trainer, build_trainer

aten = torch.ops.aten
#: Operators whose result a process reads, so that it waits for a GPU
WAITS = {aten._local_scalar_dense, aten.nonzero, aten.is_nonzero, aten.equal, aten.masked_select}
#: Measured: 3559 and 65, of which detectron2's own parts have most; they vary a little with the proposals
MOST_OPERATORS, MOST_WAITS = 4000, 75


class Operators(TorchDispatchMode):
    """Counts calls of operators."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: Counter[Any] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls[func.overloadpacket] += 1
        return func(*args, **(kwargs or {}))

    @property
    def waits(self) -> int:
        return sum(self.calls[operator] for operator in WAITS)


@pytest.fixture(scope="module")
def trainer(tiny: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    more = ("model.backbone.bottom_up.model_name=test_resnet", "model.backbone.bottom_up.norm=FrozenBN")
    cfg = tiny("mask_rcnn_timm.py", tmp_path_factory.mktemp("run"), *more)
    torch.manual_seed(0)
    model = build_model(cfg).train()
    batch = instantiate(cfg.dataloader.train).batch(0)
    trainer = build_trainer(cfg.train, model, itertools.repeat(batch), build_optimizer(cfg, model))
    trainer.storage, trainer.iter = EventStorage(), 0
    return trainer


def count(trainer: Trainer) -> Operators:
    with trainer.storage, Operators() as operators:
        trainer.run_step()
    return operators


def test_step_takes_no_more_operators_and_waits(trainer: Trainer) -> None:
    count(trainer)
    operators = count(trainer)
    assert not operators.calls[aten.native_batch_norm], "frozen norms are folded"
    assert not operators.calls[torch.ops.torchvision.roi_align], "ROIAlign is products of matrices"
    assert sum(operators.calls.values()) <= MOST_OPERATORS
    assert operators.waits <= MOST_WAITS


def test_backward_pass_keeps_no_more_memory(tiny: Callable[..., Any], tmp_path: Path) -> None:
    kept = {}
    for norm in ("keep", "FrozenBN"):
        more = ("model.backbone.bottom_up.model_name=test_resnet", f"model.backbone.bottom_up.norm={norm}")
        backbone = build_model(tiny("faster_rcnn_timm.py", tmp_path, *more)).backbone.train().to("meta")
        images = torch.empty(2, 3, 256, 256, device="meta")
        kept[norm] = saved_bytes(lambda backbone=backbone, images=images: backbone(images), backbone)
    assert kept["FrozenBN"] < 0.75 * kept["keep"]
