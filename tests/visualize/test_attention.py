"""Attention maps: timm's attention, arranged on the grid of the image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import pytest
import timm
import torch
from timm.models.swin_transformer import SwinTransformerBlock, window_partition
from timm.utils import AttentionExtract
from torch import Tensor

from d2timm import TimmBackbone
from d2timm.backbone.blocks import PaddedThenShifted
from d2timm.visualize.attention import (
    MIXED,
    NO_GRID,
    TOO_LARGE,
    Attention,
    _BlockLayout,
    attention_of,
    draw_attention,
)
from d2timm.visualize.image_grid import Tile

SWIN = {"embed_dim": 12, "depths": (2, 2, 2, 2), "num_heads": (1, 2, 2, 2)}
PVT = {"depths": (1, 1, 1, 1), "embed_dims": (8, 16, 20, 32)}
SAM = {"embed_dim": 24, "depth": 4, "num_heads": 2, "window_size": 3, "global_attn_indexes": (1, 3)}


def backbone(name: str, timm_kwargs: dict[str, Any] | None = None, **options: Any) -> TimmBackbone:
    torch.manual_seed(0)
    return TimmBackbone(name, timm_kwargs=timm_kwargs, **options).eval()


def image(height: int, width: int) -> Tensor:
    return torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ["test_vit", "test_vit2", "test_vit4"])  # with class and register tokens
def test_maps_equal_the_attention_that_timm_extracts(name: str) -> None:
    net = backbone(name)
    side = net.spec.native_size[0]
    x = image(side, side)
    attention = attention_of(net, x, (side, side))
    reference = timm.create_model(name).eval()
    reference.load_state_dict(net.model.state_dict(), strict=False)
    for module in reference.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = False
    with torch.no_grad():
        expected = AttentionExtract(reference, method="hook")(x)
    assert set(attention.maps) == {key.removesuffix(".attn.attn_drop") for key in expected}
    for key, values in expected.items():
        received = values[0].mean((0, 1)) * values.shape[-1]
        shown = attention.maps[key.removesuffix(".attn.attn_drop")]
        torch.testing.assert_close(shown.flatten(), received[reference.num_prefix_tokens :])
    assert attention.notes() == []


def test_uniform_attention_is_one_everywhere() -> None:
    net = backbone("test_vit")
    with torch.no_grad():
        for parameter in net.model.parameters():
            parameter.zero_()
    for values in attention_of(net, image(96, 64), (96, 64)).maps.values():
        torch.testing.assert_close(values, torch.ones(6, 4))


@pytest.mark.parametrize("size", [(96, 160), (100, 70)])
@pytest.mark.parametrize(
    ("name", "kwargs", "strides"),
    [
        ("test_vit", None, [16] * 6),
        ("swin_tiny_patch4_window7_224", SWIN, [4, 4, 8, 8, 16, 16, 32, 32]),
        ("swinv2_tiny_window8_256", SWIN, [4, 4, 8, 8, 16, 16, 32, 32]),
        ("samvit_base_patch16", SAM, [16] * 4),  # blocks with and without windows
        ("pvt_v2_b0", PVT, None),  # fewer keys than queries
    ],
)
def test_maps_have_the_grid_of_the_image(
    name: str, kwargs: Any, strides: list[int] | None, size: tuple[int, int]
) -> None:
    net = backbone(name, kwargs)
    x = torch.nn.functional.pad(image(*size), (0, 32, 0, 64))  # as in a batch with larger images
    attention = attention_of(net, x, size)
    assert attention.left_out == {}
    for i, values in enumerate(attention.maps.values()):
        if strides:
            assert tuple(values.shape) == tuple(-(-side // strides[i]) for side in size)
        assert 0.3 < values.mean() < 3  # not 1: padding also receives attention
        assert values.min() >= 0


def test_detector_is_not_changed() -> None:
    net = backbone("test_vit")
    x = image(64, 96)
    with torch.no_grad():
        before = net(x)
        fused = [m.fused_attn for m in net.modules() if hasattr(m, "fused_attn")]
        attention_of(net, x, (64, 96))
        after = net(x)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert [m.fused_attn for m in net.modules() if hasattr(m, "fused_attn")] == fused
    model = net.prepare(x)[0]  # may be a copy for this size
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in (*net.modules(), *model.modules()))


@pytest.mark.parametrize("pads_first", [True, False])
@pytest.mark.parametrize("shift", [(0, 0), (3, 2)])
@pytest.mark.parametrize("grid", [(12, 8), (10, 9)])
def test_windows_are_joined(grid: tuple[int, int], shift: tuple[int, int], pads_first: bool) -> None:
    window = (6, 4)
    values = torch.arange(1.0, grid[0] * grid[1] + 1).view(1, *grid, 1)

    def pad(x: Tensor) -> Tensor:
        return torch.nn.functional.pad(x, (0, 0, 0, -grid[1] % 4, 0, -grid[0] % 6))

    def roll(x: Tensor) -> Tensor:
        return x.roll((-shift[0], -shift[1]), dims=(1, 2))

    cut = roll(pad(values)) if pads_first else pad(roll(values))
    received = window_partition(cut, window).view(-1, 24)  # as in Swin's blocks

    kind = PaddedThenShifted if pads_first else SwinTransformerBlock
    block = kind(2, grid, num_heads=1, window_size=window, always_partition=True)
    block.shift_size = shift
    model = torch.nn.ModuleDict({"block": block})
    layout = _BlockLayout(model, "block.attn.attn_drop", torch.Size((1, *grid, 1)))
    joined = layout.arrange(received, 0, [])
    assert joined is not None
    assert torch.equal(joined, values[0, ..., 0])


@pytest.mark.parametrize("size", [(64, 96), (128, 256)])  # the latter: as many cells as channels of a head
def test_attention_between_channels_has_no_map(size: tuple[int, int]) -> None:
    net = backbone("xcit_nano_12_p16_224", {"depth": 4})
    attention = attention_of(net, image(*size), size)
    assert attention.maps == {}
    (note,) = attention.notes()
    assert "blocks.0, blocks.1, blocks.2, …" in note
    assert NO_GRID in note


def test_mixed_heads_have_no_map() -> None:
    net = backbone("cait_xxs24_224", {"depth": 3, "embed_dim": 48})
    attention = attention_of(net, image(64, 64), (64, 64))
    assert attention.maps == {}
    assert set(attention.left_out.values()) == {MIXED}


def test_model_without_attention_has_a_note() -> None:
    attention = attention_of(backbone("test_resnet"), image(64, 64), (64, 64))
    assert (attention.maps, attention.left_out) == ({}, {})
    assert len(attention.notes()) == 1


def test_attention_that_is_too_large_is_not_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    net, x = backbone("test_vit"), image(128, 128)
    tokens = 8 * 8 + getattr(net.model, "num_prefix_tokens", 0)
    needed = net.model.blocks[0].attn.num_heads * tokens**2 * 4
    monkeypatch.setattr("d2timm.visualize.attention.MAX_BYTES", needed)
    assert len(attention_of(net, x, (128, 128)).maps) == len(net.model.blocks)
    monkeypatch.setattr("d2timm.visualize.attention.MAX_BYTES", needed - 1)
    attention = attention_of(net, x, (128, 128))
    assert attention.maps == {}
    assert set(attention.left_out.values()) == {TOO_LARGE}


def test_grid_has_the_image_and_one_tile_per_block(tmp_path: Path) -> None:
    maps = {f"blocks.{i}": torch.full((4, 6), 1.0 + i) for i in range(7)}
    tile = Tile("image", torch.zeros(40, 60, 3, dtype=torch.uint8).numpy())
    heights = []
    for blocks in (2, 7):
        file = tmp_path / f"{blocks}.png"
        draw_attention(file, tile, Attention(dict(list(maps.items())[:blocks]), {}))
        heights.append(cv2.imread(str(file)).shape[0])
    assert heights[1] == pytest.approx(2 * heights[0], abs=2)
