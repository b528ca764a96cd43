"""Feature maps: each level without its padding, coloured by its principal components."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from helpers.choices import compose

from d2timm.backbone.timm_backbone import TimmBackbone
from d2timm.config.build import build_model
from d2timm.visualize.feature_maps import (
    FeatureMap,
    Levels,
    backbone_of,
    draw_feature_maps,
    image_tile,
    levels_of,
    principal_colors,
)

SIZE = (140, 180)  # not a multiple of any stride
LABELS = {"classes": ["a", "b"], "stuff": ["sky"], "keypoints": []}


def detector(choice: str) -> torch.nn.Module:
    cfg = compose(*choice.split())
    cfg.data.labels = LABELS
    return build_model(cfg).eval()


@pytest.fixture
def entry() -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(256, (3, *SIZE), dtype=torch.uint8, generator=generator)
    return {"image": image, "height": 35, "width": 45}


@pytest.mark.parametrize(
    ("choice", "neck"),
    [
        ("rcnn fpn mask", {"p2": 4, "p3": 8, "p4": 16, "p5": 32, "p6": 64}),
        ("fcos fpn_p6p7 none", {"p3": 8, "p4": 16, "p5": 32, "p6": 64, "p7": 128}),
        ("semantic_fpn fpn none", {"p2": 4, "p3": 8, "p4": 16, "p5": 32}),
        ("rcnn none box", {"p4": 16}),
    ],
)
def test_levels_of_backbone_and_neck(choice: str, neck: dict[str, int], entry: dict[str, Any]) -> None:
    model = detector(choice)
    levels = levels_of(model, entry)
    strides = {level.name: level.stride for level in levels.neck}
    assert {name: strides[name] for name in neck} == neck
    assert levels.backbone
    for level in (*levels.backbone, *levels.neck):
        assert level.map.shape[1:] == tuple(-(-side // level.stride) for side in SIZE)
    with torch.no_grad():
        expected = model.backbone(levels.input)
    for level in levels.neck:
        _, height, width = level.map.shape
        assert torch.equal(expected[level.name][0, :, :height, :width], level.map)


def test_hooks_are_removed(entry: dict[str, Any]) -> None:
    model = detector("rcnn fpn box")
    levels_of(model, entry)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    with pytest.raises(KeyError):
        levels_of(model, {})
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_backbone_without_a_neck(entry: dict[str, Any]) -> None:
    model = detector("rcnn fpn box")
    assert isinstance(backbone_of(model), TimmBackbone)

    class Bare(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = backbone_of(model)

        def forward(self, batch: list[dict[str, Any]]) -> Any:
            return self.backbone(batch[0]["image"][None].float())

    levels = levels_of(Bare().eval(), entry)
    assert [level.name for level in levels.backbone] == ["res2", "res3", "res4", "res5"]
    assert levels.neck == []


# Colours


def regions(channels: int) -> torch.Tensor:
    """A map of four quarters with different features, and a little noise."""
    generator = torch.Generator().manual_seed(1)
    kinds = torch.randn(4, channels, generator=generator)
    quarters = torch.arange(4).view(2, 2).repeat_interleave(5, 0).repeat_interleave(6, 1)
    return kinds[quarters].permute(2, 0, 1) + 0.01 * torch.randn(channels, 10, 12, generator=generator)


@pytest.mark.parametrize("channels", [8, 64, 500])
def test_similar_cells_have_similar_colours(channels: int) -> None:
    colors = principal_colors(regions(channels)).astype(int)
    assert colors.shape == (10, 12, 3)
    quarters = [colors[y : y + 5, x : x + 6].reshape(-1, 3) for y in (0, 5) for x in (0, 6)]
    means = [quarter.mean(0) for quarter in quarters]
    assert max(np.abs(quarter - mean).max() for quarter, mean in zip(quarters, means, strict=True)) < 25
    assert min(np.abs(means[i] - means[j]).max() for i in range(4) for j in range(i)) > 60
    assert (colors.min((0, 1)) == 0).all()
    assert (colors.max((0, 1)) == 255).all()


def test_components_equal_those_of_an_svd() -> None:
    features = regions(16)
    cells = features.flatten(1).T.double().numpy()
    _, _, components = np.linalg.svd(cells - cells.mean(0))
    colors = principal_colors(features).reshape(-1, 3).astype(float)
    for i in range(3):
        expected = (cells - cells.mean(0)) @ components[i]
        assert abs(np.corrcoef(expected, colors[:, i])[0, 1]) > 0.99
    wide = torch.cat([features] * 20)  # more channels than cells, but the same components
    assert np.abs(principal_colors(wide).reshape(-1, 3) - colors).max() <= 1


@pytest.mark.parametrize("channels", [1, 2, 8])
def test_maps_with_fewer_than_three_components(channels: int) -> None:
    assert (np.abs(principal_colors(torch.ones(channels, 4, 5)).astype(int) - 128) <= 1).all()
    ramp = torch.arange(20.0).view(1, 4, 5).repeat(channels, 1, 1)
    colors = principal_colors(ramp)
    assert colors.shape == (4, 5, 3)
    assert colors[..., 0].min() == 0
    assert colors[..., 0].max() == 255


# The grid


def test_grid_has_the_image_and_one_tile_per_level(entry: dict[str, Any], tmp_path: Path) -> None:
    image = image_tile(entry, "RGB")
    assert image.title == "image: 140×180"
    assert np.array_equal(image.pixels, entry["image"].permute(1, 2, 0).numpy())
    levels = [FeatureMap(f"res{i}", 8, regions(8)) for i in (2, 3)]
    assert str(levels[0]) == "res2: 8 channels, 10×12"
    files = []
    for neck in ([], levels):
        files.append(tmp_path / f"{len(neck)}.png")
        draw_feature_maps(files[-1], image, Levels(torch.empty(0), levels, neck))
    one, two = (cv2.imread(str(file)).shape for file in files)
    assert two[0] == pytest.approx(2 * one[0], abs=2)
    assert two[1] == one[1] > 3 * 300


@pytest.mark.parametrize(("image_format", "channel"), [("RGB", 0), ("BGR", 2), ("L", None)])
def test_image_tile_is_rgb(image_format: str, channel: int | None) -> None:
    pixels = torch.zeros(1 if image_format == "L" else 3, 4, 5, dtype=torch.uint8)
    pixels[0] = 200
    shown = image_tile({"image": pixels}, image_format).pixels[0, 0].tolist()
    assert shown == [200 if channel in (i, None) else 0 for i in range(3)]
