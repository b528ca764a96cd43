"""--dry-run tells what would be built, for giants too, and makes nothing."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from d2timm.config.build import build_on_meta, resolve_dataset
from d2timm.config.lazy import apply_overrides, get_config
from d2timm.data.datasets import shapes_dataset as shapes_files
from d2timm.engine.dry_run import report

MASK = "mask_rcnn_timm.py"


def row(text: str, name: str) -> list[str]:
    """The cells of a line of a table."""
    (line,) = [line for line in text.splitlines() if line.startswith(f"{name}  ")]
    return re.split(r"\s{2,}", line.strip())


@pytest.fixture
def describe() -> Callable[..., str]:
    """The report of a recipe with overrides."""

    def of(recipe: str, *overrides: str) -> str:
        cfg = apply_overrides(get_config(recipe), overrides)
        resolve_dataset(cfg)
        return report(cfg, build_on_meta(cfg))

    return of


def test_levels_parameters_and_flops_of_a_known_model(describe: Callable[..., str]) -> None:
    text = describe(MASK, "data.settings.shapes.test_short_edge=224", "data.settings.shapes.max_size=224")
    assert text.startswith("resnet50, native size 224x224; images of any size by: any size")
    for level, stride, channels in (
        ("res2", 4, 256),
        ("res3", 8, 512),
        ("res4", 16, 1024),
        ("res5", 32, 2048),
    ):
        assert row(text, level)[-3:] == [str(stride), str(stride), str(channels)]
    assert "GFLOPs at 224x224" in text
    _, parameters, gflops = row(text, "bottom-up")
    assert float(parameters) == 23.51  # ResNet-50 has 25.56 M, its classifier 2.05 M
    assert float(gflops) == pytest.approx(4.09, abs=0.02)  # of the paper's 4.1 without the classifier


def test_parts_add_up(tiny: Callable[..., Any], tmp_path: Path) -> None:
    cfg = tiny(MASK, tmp_path / "run")
    model = build_on_meta(cfg)
    text = report(cfg, model)
    total = sum(p.numel() for p in model.parameters()) / 1e6
    assert float(row(text, "all")[1]) == pytest.approx(total, abs=0.005)
    parts = ("bottom-up", "neck", "proposal generator", "roi heads")
    assert sum(float(row(text, part)[1]) for part in parts) == pytest.approx(total, abs=0.02)


def test_own_data_and_schedule(tiny: Callable[..., Any], tmp_path: Path) -> None:
    cfg = tiny(MASK, tmp_path / "run")
    text = report(cfg, build_on_meta(cfg))
    assert re.search(r"custom train: 6 images, \d+ objects, 4 classes", text)
    assert re.search(r"custom val: 3 images, \d+ objects, 4 classes", text)
    assert f"4 iterations of 2 images on cpu, into {tmp_path / 'run'}" in text
    assert not list(tmp_path.iterdir())


def test_data_that_are_not_there_are_told_and_are_no_error(describe: Callable[..., str]) -> None:
    text = describe(MASK, "data.name=coco_2017", "model.backbone.bottom_up.model_name=test_resnet")
    assert len(re.findall(r"not usable: data\.name=coco_2017: .*no such file", text)) == 2
    assert "GFLOPs at 800x1333" in text
    assert "90000 iterations of 16 images" in text
    assert text.endswith("learning rate 0.0001")


def test_rate_is_that_of_the_size_of_a_step(describe: Callable[..., str]) -> None:
    overrides = ["data.name=shapes", "model.backbone.bottom_up.model_name=test_resnet", "optimizer.lr=0.02"]
    text = describe(MASK, *overrides, "train.reference_batch_size=8")
    assert text.endswith("learning rate 0.02 x sqrt(2/8) = 0.01")
    assert "learning rate" not in describe(MASK, *overrides, "~optimizer")


def test_embedded_set_is_not_drawn(describe: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shapes_files, "write_shapes", None)
    text = describe(MASK, "model.backbone.bottom_up.model_name=test_resnet")
    assert "the embedded set, drawn when it is first used" in text


@pytest.mark.timeout(60)
def test_giant_takes_seconds_and_no_memory(describe: Callable[..., str]) -> None:
    text = describe(
        "faster_rcnn_timm.py",
        "model.backbone.bottom_up.model_name=vit_giant_patch14_dinov2",
        "data.settings.shapes.test_short_edge=800",
        "data.settings.shapes.max_size=1333",
    )
    assert float(row(text, "bottom-up")[1]) > 1000  # 1.1 billion
    assert [row(text, level)[-1] for level in ("res2", "res3", "res4", "res5")] == ["1536"] * 4
    assert "mask head" not in text


def test_how_a_model_takes_images_of_any_size(describe: Callable[..., str]) -> None:
    text = describe(MASK, "model.backbone.bottom_up.model_name=swin_tiny_patch4_window7_224")
    assert re.search(r"swin_tiny.*, native size 224x224; images of any size by: ", text)
    fixed = "model.backbone.bottom_up.fixed_input_size=True"
    assert "by: resizing to 224x224" in describe(MASK, fixed)
