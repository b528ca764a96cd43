"""--dry-run summarizes what a config builds, also of giant models, and creates nothing."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from d2timm.config.build import build_on_meta, resolve_dataset
from d2timm.config.lazy import get_config
from d2timm.config.overrides import apply_overrides
from d2timm.data.datasets import shapes_dataset
from d2timm.engine.dry_run import summarize

MASK = "mask_rcnn_timm.py"


def row(text: str, name: str) -> list[str]:
    """The cells of a row of a table."""
    (line,) = [line for line in text.splitlines() if line.startswith(f"{name}  ")]
    return re.split(r"\s{2,}", line.strip())


@pytest.fixture
def summary_of() -> Callable[..., str]:
    """The summary of a recipe with overrides."""

    def of(recipe: str, *overrides: str) -> str:
        cfg = apply_overrides(get_config(recipe), overrides)
        resolve_dataset(cfg)
        return summarize(cfg, build_on_meta(cfg))

    return of


def test_levels_parameters_and_flops_of_a_known_model(summary_of: Callable[..., str]) -> None:
    text = summary_of(MASK, "data.settings.shapes.test_short_edge=224", "data.settings.shapes.max_size=224")
    assert text.startswith("resnet50, native size 224x224, route: any size\n")
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
    assert float(gflops) == pytest.approx(4.09, abs=0.02)  # the 4.1 of the paper, without the classifier


def test_parts_add_up(tiny: Callable[..., Any], tmp_path: Path) -> None:
    cfg = tiny(MASK, tmp_path / "run")
    model = build_on_meta(cfg)
    text = summarize(cfg, model)
    total = sum(p.numel() for p in model.parameters()) / 1e6
    assert float(row(text, "all")[1]) == pytest.approx(total, abs=0.005)
    parts = ("bottom-up", "neck", "proposal generator", "roi heads")
    assert sum(float(row(text, part)[1]) for part in parts) == pytest.approx(total, abs=0.02)


def test_custom_data_and_schedule(tiny: Callable[..., Any], tmp_path: Path) -> None:
    cfg = tiny(MASK, tmp_path / "run")
    text = summarize(cfg, build_on_meta(cfg))
    assert re.search(r"custom train: 6 images, \d+ objects, 4 classes", text)
    assert re.search(r"custom val: 3 images, \d+ objects, 4 classes", text)
    assert f"4 iterations of 2 images on cpu, into {tmp_path / 'run'}" in text
    assert not list(tmp_path.iterdir())


def test_missing_data_are_reported_without_an_error(summary_of: Callable[..., str]) -> None:
    text = summary_of(MASK, "data.name=coco_2017", "model.backbone.bottom_up.model_name=test_resnet")
    assert len(re.findall(r"not usable: data\.name=coco_2017: .*no such file", text)) == 2
    assert "GFLOPs at 800x1333" in text
    assert "90000 iterations of 16 images" in text
    assert text.endswith("learning rate 0.0001")


def test_learning_rate_is_scaled_to_the_images_per_step(summary_of: Callable[..., str]) -> None:
    overrides = ["data.name=shapes", "model.backbone.bottom_up.model_name=test_resnet", "optimizer.lr=0.02"]
    text = summary_of(MASK, *overrides, "train.reference_batch_size=8")
    assert text.endswith("learning rate 0.02 x sqrt(2/8) = 0.01")
    assert "learning rate" not in summary_of(MASK, *overrides, "~optimizer")


def test_embedded_dataset_is_not_drawn(
    summary_of: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shapes_dataset, "write_shapes", None)
    text = summary_of(MASK, "model.backbone.bottom_up.model_name=test_resnet")
    assert "shapes: the embedded dataset" in text


@pytest.mark.timeout(60)
def test_giant_takes_seconds_and_no_memory(summary_of: Callable[..., str]) -> None:
    text = summary_of(
        "faster_rcnn_timm.py",
        "model.backbone.bottom_up.model_name=vit_giant_patch14_dinov2",
        "data.settings.shapes.test_short_edge=800",
        "data.settings.shapes.max_size=1333",
    )
    assert float(row(text, "bottom-up")[1]) > 1000  # 1.1 billion
    assert [row(text, level)[-1] for level in ("res2", "res3", "res4", "res5")] == ["1536"] * 4
    assert "mask head" not in text


def test_route_of_images_of_other_sizes(summary_of: Callable[..., str]) -> None:
    text = summary_of(MASK, "model.backbone.bottom_up.model_name=swin_tiny_patch4_window7_224")
    assert re.search(r"swin_tiny.*, native size 224x224, route: ", text)
    fixed = "model.backbone.bottom_up.fixed_input_size=True"
    assert "route: resizing to 224x224" in summary_of(MASK, fixed)
