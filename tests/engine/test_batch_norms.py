"""Training with one image per process is refused if a batch norm would have one value per channel."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

from d2timm import ConfigError
from d2timm.backbone.meta import MetaRun
from d2timm.cli import main
from d2timm.config.build import build_on_meta
from d2timm.engine.batch_norms import check_batch_norms

BACKBONE = "model.backbone.bottom_up"
POOLED = f"{BACKBONE}.model_name=resnest14d"  # batch norms behind a global pooling
BATCH = "dataloader.train.total_batch_size"


@pytest.fixture
def check(tiny: Callable[..., Any], tmp_path: Path) -> Callable[..., None]:
    """Check a config for an image of 64x96 pixels, or of another size."""

    def run(*overrides: str, processes: int = 1, size: tuple[int, int] = (64, 96)) -> None:
        cfg = tiny("mask_rcnn_timm.py", tmp_path, *overrides)
        check_batch_norms(cfg, build_on_meta(cfg), torch.empty(1, 3, *size, device="meta"), processes)

    return run


@pytest.mark.parametrize(
    ("batch", "processes", "enough", "more"),
    [(1, 1, 2, []), (4, 4, 8, []), (1, 1, 2, ["train.accumulate=4"])],
)
def test_batch_norms_behind_a_global_pooling_need_two_images(
    batch: int, processes: int, enough: int, more: list[str], check: Callable[..., None]
) -> None:
    with pytest.raises(ConfigError) as caught:
        check(POOLED, f"{BATCH}={batch}", *more, processes=processes)
    fixes = [f"{BACKBONE}.norm=FrozenBN", f"{BATCH}={enough}"]
    for fact in [f"{BATCH}={batch} ", "4 batch norms", "layer1.0.conv2.bn1", *fixes]:
        assert fact in str(caught.value)
    check(POOLED, f"{BATCH}={enough}", *more, processes=processes)


def test_frozen_batch_norms_accept_one_image(check: Callable[..., None]) -> None:
    check(POOLED, f"{BATCH}=1", f"{BACKBONE}.norm=FrozenBN")
    check(POOLED, f"{BATCH}=1", f"{BACKBONE}.freeze_at=5")
    with pytest.raises(
        ConfigError, match=r" 3 batch norms, such as model\.backbone\.bottom_up\.model\.layer2"
    ):
        check(POOLED, f"{BATCH}=1", f"{BACKBONE}.freeze_at=2")


def test_norms_that_are_shared_between_processes_accept_one_image_in_each(check: Callable[..., None]) -> None:
    synchronized = f"{BACKBONE}.norm=SyncBN"
    check(POOLED, f"{BATCH}=2", synchronized, processes=2)
    with pytest.raises(ConfigError):
        check(POOLED, f"{BATCH}=1", synchronized)


def test_norm_of_the_neck_needs_two_images(check: Callable[..., None]) -> None:
    norm = ("model.backbone.norm=BN", f"{BATCH}=1")
    check(*norm)
    with pytest.raises(ConfigError, match=r"model\.backbone\.fpn_lateral5\.norm") as caught:
        check(*norm, size=(32, 32))
    assert "FrozenBN" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "accepted"),
    [("resnest14d", False), ("skresnet18", False), ("resnet18", True), ("seresnet50", True)],
)
def test_check_agrees_with_a_forward_pass_in_training(
    name: str, accepted: bool, check: Callable[..., None], tiny: Callable[..., Any], tmp_path: Path
) -> None:
    override = f"{BACKBONE}.model_name={name}"
    model: Any = build_on_meta(tiny("mask_rcnn_timm.py", tmp_path, override))
    raised = nullcontext() if accepted else pytest.raises(ValueError, match="more than 1 value per channel")
    with raised, torch.no_grad(), MetaRun():
        model.backbone.train()(torch.empty(1, 3, 64, 96, device="meta"))
    with nullcontext() if accepted else pytest.raises(ConfigError):
        check(override, f"{BATCH}=1")


@pytest.mark.parametrize("flags", [[], ["--dry-run"]], ids=["run", "dry run"])
def test_command_creates_nothing(
    flags: list[str],
    tiny_overrides: Callable[..., list[str]],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    overrides = tiny_overrides("mask", tmp_path / "run", POOLED, f"{BATCH}=1")
    assert main(["train", "--config-file", "mask_rcnn_timm.py", *flags, *overrides]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert f"{BACKBONE}.norm=FrozenBN" in line
    assert not list(tmp_path.iterdir())
