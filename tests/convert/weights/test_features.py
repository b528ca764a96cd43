"""Converted weights give the same features as the published models.

The published models are reimplemented here from their definitions, or are detectron2's own.
"""

from __future__ import annotations

import functools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from detectron2 import model_zoo
from detectron2.config import instantiate
from detectron2.modeling.backbone import BasicStem, ResNet, vit
from helpers.layouts import convnext, numbers, resnet50, swin, vitdet, xcit, zoo_mask_rcnn, zoo_retinanet
from torch import Tensor, nn

from d2timm import TimmBackbone
from d2timm.convert.weights.convert import layout_of
from d2timm.convert.weights.matching import match
from d2timm.convert.weights.target import Pixels, Target
from d2timm.modeling.simple_feature_pyramid import SimpleFeaturePyramid

Weights = dict[str, Tensor]

PIXELS = Pixels("RGB", (123.675, 116.28, 103.53), (58.395, 57.12, 57.375))


def converted(weights: Weights, backbone: nn.Module, *notes: str) -> nn.Module:
    """Load weights of a published layout into a backbone, with or without a neck; check the notes."""
    detector: Any = nn.Module()
    neck = backbone if hasattr(backbone, "bottom_up") else nn.Module()
    detector.backbone = neck
    if neck is not backbone:
        neck.bottom_up = backbone
    result = match(weights, layout_of(weights, Path()), Target(detector, "a tiny model", PIXELS))
    assert result.complete
    assert [note[: len(start)] for note, start in zip(result.notes, notes, strict=True)] == list(notes)
    detector.load_state_dict(result.weights)
    return backbone.eval()


def difference(theirs: list[Tensor], ours: dict[str, Tensor]) -> float:
    """The largest difference of features, relative to the largest feature."""
    assert [x.shape for x in theirs] == [x.shape for x in ours.values()]
    pairs = zip(theirs, ours.values(), strict=True)
    worst = max(float((a - b).abs().max() / a.abs().max()) for a, b in pairs)
    print(f"largest difference {worst:.1e} of the largest feature")
    return worst


def norm(w: Weights, name: str, x: Tensor, eps: float) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"], eps)


def linear(w: Weights, name: str, x: Tensor) -> Tensor:
    return F.linear(x, w[f"{name}.weight"], w.get(f"{name}.bias"))


def conv(w: Weights, name: str, x: Tensor, **how: Any) -> Tensor:
    return F.conv2d(x, w[f"{name}.weight"], w.get(f"{name}.bias"), **how)


def batch_norm(w: Weights, name: str, x: Tensor) -> Tensor:
    statistics = (w[f"{name}.{key}"] for key in ("running_mean", "running_var", "weight", "bias"))
    return F.batch_norm(x, *statistics)


def mlp(w: Weights, name: str, x: Tensor, eps: float) -> Tensor:
    return linear(
        w, f"{name}.mlp.fc2", F.gelu(linear(w, f"{name}.mlp.fc1", norm(w, f"{name}.norm2", x, eps)))
    )


def swin_forward(
    w: Weights, x: Tensor, depths: tuple[int, ...], heads: tuple[int, ...], m: int
) -> list[Tensor]:
    """Liu et al. (https://arxiv.org/abs/2103.14030): maps are padded to windows of m cells, and shifted."""
    x = conv(w, "backbone.patch_embed.proj", x, stride=4).permute(0, 2, 3, 1)
    x = norm(w, "backbone.patch_embed.norm", x, 1e-5)
    maps = []
    for stage, depth in enumerate(depths):
        for index in range(depth):
            block = f"backbone.layers.{stage}.blocks.{index}"
            shift = m // 2 if index % 2 else 0
            x = x + windowed(w, f"{block}.attn", norm(w, f"{block}.norm1", x, 1e-5), heads[stage], m, shift)
            x = x + mlp(w, block, x, 1e-5)
        maps.append(norm(w, f"backbone.norm{stage}", x, 1e-5).permute(0, 3, 1, 2))
        if stage < len(depths) - 1:
            x = F.pad(x, (0, 0, 0, x.shape[2] % 2, 0, x.shape[1] % 2))
            x = torch.cat([x[:, i::2, j::2] for j in (0, 1) for i in (0, 1)], -1)
            down = f"backbone.layers.{stage}.downsample"
            x = linear(w, f"{down}.reduction", norm(w, f"{down}.norm", x, 1e-5))
    return maps


def windowed(w: Weights, name: str, x: Tensor, heads: int, m: int, shift: int) -> Tensor:
    """Attention within windows of m x m cells of a map (1, H, W, C) that is rolled by ``shift``."""
    _, height, width, channels = x.shape
    x = F.pad(x, (0, 0, 0, -width % m, 0, -height % m)).roll((-shift, -shift), (1, 2))
    rows, columns = x.shape[1] // m, x.shape[2] // m

    def cut(x: Tensor) -> Tensor:  # (1, H, W, C) -> (windows, m * m, C)
        return x.view(rows, m, columns, m, -1).transpose(1, 2).reshape(rows * columns, m * m, -1)

    q, k, v = (
        linear(w, f"{name}.qkv", cut(x)).view(-1, m * m, 3, heads, channels // heads).permute(2, 0, 3, 1, 4)
    )
    cell = torch.stack(torch.meshgrid(torch.arange(m), torch.arange(m), indexing="ij")).flatten(1)
    dy, dx = cell[:, :, None] - cell[:, None] + m - 1
    scores = q @ k.transpose(-2, -1) / math.sqrt(channels // heads)
    scores = scores + w[f"{name}.relative_position_bias_table"][dy * (2 * m - 1) + dx].permute(2, 0, 1)
    if shift:  # cells that were rolled around do not attend to their new neighbours
        band = [torch.tensor([0] * (side - m) + [1] * (m - shift) + [2] * shift) for side in x.shape[1:3]]
        region = cut((3 * band[0][:, None] + band[1])[None, ..., None])
        scores = scores.masked_fill((region != region.transpose(1, 2))[:, None], -100)
    x = (scores.softmax(-1) @ v).transpose(1, 2).reshape(rows, columns, m, m, channels)
    x = x.transpose(1, 2).reshape(1, rows * m, columns * m, channels).roll((shift, shift), (1, 2))
    return linear(w, f"{name}.proj", x[:, :height, :width])


@pytest.mark.parametrize("size", [(224, 224), (96, 160)])
def test_swin(size: tuple[int, int]) -> None:
    sizes: dict[str, Any] = {"depths": (2, 2, 2, 2), "heads": (1, 2, 3, 4)}
    weights = numbers(swin(width=12, window=7, **sizes))
    ours = converted(weights, tiny_swin())
    x = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert difference(swin_forward(weights, x, m=7, **sizes), ours(x)) < 1e-5


@functools.cache
def tiny_swin() -> nn.Module:
    kwargs = {"embed_dim": 12, "depths": (2, 2, 2, 2), "num_heads": (1, 2, 3, 4), "always_partition": True}
    return TimmBackbone("swin_tiny_patch4_window7_224", level_norm="all", timm_kwargs=kwargs)


def convnext_forward(w: Weights, x: Tensor, depths: tuple[int, ...]) -> list[Tensor]:
    """Liu et al. (https://arxiv.org/abs/2201.03545)."""

    def channels_first(name: str, x: Tensor) -> Tensor:
        return norm(w, name, x.permute(0, 2, 3, 1), 1e-6).permute(0, 3, 1, 2)

    maps = []
    for stage, depth in enumerate(depths):
        down = f"backbone.downsample_layers.{stage}"
        if stage:
            x = conv(w, f"{down}.1", channels_first(f"{down}.0", x), stride=2)
        else:
            x = channels_first(f"{down}.1", conv(w, f"{down}.0", x, stride=4))
        for index in range(depth):
            block = f"backbone.stages.{stage}.{index}"
            y = conv(w, f"{block}.dwconv", x, padding=3, groups=x.shape[1]).permute(0, 2, 3, 1)
            y = F.gelu(linear(w, f"{block}.pwconv1", norm(w, f"{block}.norm", y, 1e-6)))
            x = x + (w[f"{block}.gamma"] * linear(w, f"{block}.pwconv2", y)).permute(0, 3, 1, 2)
        maps.append(channels_first(f"backbone.norm{stage}", x))
    return maps


def test_convnext() -> None:
    widths, depths = (8, 12, 16, 24), (1, 1, 2, 1)
    weights = numbers(convnext(widths, depths))
    kwargs = {"dims": widths, "depths": depths}
    ours = converted(weights, TimmBackbone("convnext_tiny", level_norm="all", timm_kwargs=kwargs))
    x = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert difference(convnext_forward(weights, x, depths), ours(x)) < 1e-5


def xcit_forward(w: Weights, x: Tensor, patch: int, depth: int, heads: int) -> list[Tensor]:
    """El-Nouby et al. (https://arxiv.org/abs/2106.09681), maps of the first blocks."""
    steps = {8: 3, 16: 4}[patch]
    for step in range(steps):
        layer = f"backbone.patch_embed.proj.{2 * step}"
        x = batch_norm(w, f"{layer}.1", conv(w, f"{layer}.0", x, stride=2, padding=1))
        x = F.gelu(x) if step < steps - 1 else x
    x = x + conv(w, "backbone.pos_embeder.token_projection", fourier(*x.shape[2:]))
    height, width = x.shape[2:]
    x = x.flatten(2).transpose(1, 2)
    maps = []
    for index in range(depth):
        block = f"backbone.blocks.{index}"
        qkv = linear(w, f"{block}.attn.qkv", norm(w, f"{block}.norm1", x, 1e-6))
        q, k, v = qkv.view(1, height * width, 3, heads, -1).permute(2, 0, 3, 4, 1)  # (1, heads, C / heads, N)
        among = (
            F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1) * w[f"{block}.attn.temperature"]
        )
        y = (among.softmax(-1) @ v).permute(0, 3, 1, 2).reshape(x.shape)
        x = x + w[f"{block}.gamma1"] * linear(w, f"{block}.attn.proj", y)
        y = norm(w, f"{block}.norm3", x, 1e-6).transpose(1, 2).reshape(1, -1, height, width)
        y = F.gelu(conv(w, f"{block}.local_mp.conv1", y, padding=1, groups=y.shape[1]))
        y = conv(
            w,
            f"{block}.local_mp.conv2",
            batch_norm(w, f"{block}.local_mp.bn", y),
            padding=1,
            groups=y.shape[1],
        )
        x = x + w[f"{block}.gamma3"] * y.flatten(2).transpose(1, 2)
        x = x + w[f"{block}.gamma2"] * mlp(w, block, x, 1e-6)
        maps.append(x.transpose(1, 2).reshape(1, -1, height, width))

    def doubled(name: str, x: Tensor) -> Tensor:
        return F.conv_transpose2d(x, w[f"{name}.weight"], w[f"{name}.bias"], stride=2)

    maps[0] = doubled("backbone.fpn1.0", maps[0])
    if patch == 8:
        return [maps[0], maps[1], F.max_pool2d(maps[2], 2), F.max_pool2d(maps[3], 4)]
    maps[0] = doubled("backbone.fpn1.3", F.gelu(batch_norm(w, "backbone.fpn1.1", maps[0])))
    return [maps[0], doubled("backbone.fpn2.0", maps[1]), maps[2], F.max_pool2d(maps[3], 2)]


def fourier(height: int, width: int) -> Tensor:
    """(1, 64, H, W): sines and cosines of rows, then of columns."""
    period = 10000 ** (2 * torch.arange(16) / 32)
    maps = []
    for axis, side in enumerate((height, width)):
        place = torch.arange(1, side + 1) / (side + 1e-6) * 2 * math.pi
        angles = place[:, None] / period
        waves = torch.stack([angles.sin(), angles.cos()], -1).flatten(1).T  # (32, side)
        maps.append(waves.view(32, *((side, 1) if axis == 0 else (1, side))).expand(32, height, width))
    return torch.cat(maps)[None]


@pytest.mark.parametrize("patch", [8, 16])
def test_xcit(patch: int) -> None:
    weights = numbers(xcit(patch, width=32, depth=4, heads=4))
    backbone = TimmBackbone(
        f"xcit_small_12_p{patch}_224",
        out_indices=(0, 1, 2, 3),
        level_norm="none",
        doubling_norm="BN",
        timm_kwargs={"embed_dim": 32, "depth": 4, "num_heads": 4},
    )
    ours = converted(weights, backbone)
    x = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert difference(xcit_forward(weights, x, patch, depth=4, heads=4), ours(x)) < 1e-5


def test_vitdet() -> None:
    """detectron2's ViTDet, with windows and relative positions, on images of its native size."""
    sizes = {"img_size": 128, "embed_dim": 32, "depth": 4, "num_heads": 2}
    net = vit.ViT(
        **sizes,
        norm_layer=functools.partial(nn.LayerNorm, eps=1e-6),
        window_size=3,
        window_block_indexes=(0, 2),
        use_rel_pos=True,
    )
    theirs = vit.SimpleFeaturePyramid(net, "last_feat", 256, (4.0, 2.0, 1.0, 0.5), norm="LN", square_pad=128)
    shapes = vitdet(width=32, depth=4, head_width=16, sides=(8, 3), everywhere=(1, 3))
    weights = {name: x for name, x in numbers(shapes).items() if name.startswith("backbone.")}
    theirs.load_state_dict({name.removeprefix("backbone."): x for name, x in weights.items()})
    bottom_up = TimmBackbone(
        "samvit_base_patch16",
        out_indices=(-1,),
        remaps=("last",),
        strides=(16,),
        timm_kwargs={
            **sizes,
            "window_size": 3,
            "global_attn_indexes": (1, 3),
            "norm_layer": functools.partial(nn.LayerNorm, eps=1e-6),
        },
    )
    ours = converted(
        weights,
        SimpleFeaturePyramid(bottom_up, ["last"], 256),
        "position embeddings interpolated from 14x14 to 8x8",
    )
    x = torch.randn(1, 3, 128, 128, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert difference([*theirs.eval()(x).values()], ours(x)) < 1e-5


@pytest.mark.parametrize("stride_in_1x1", [True, False])
def test_resnet_of_detectron2(stride_in_1x1: bool) -> None:
    """detectron2's ResNet, whose images are BGR and not divided by a standard deviation."""
    stages = ResNet.make_default_stages(50, stride_in_1x1=stride_in_1x1, norm="FrozenBN")
    theirs = ResNet(BasicStem(3, 64, norm="FrozenBN"), stages, out_features=[f"res{i}" for i in range(2, 6)])
    weights = numbers(resnet50())
    theirs.load_state_dict({name.removeprefix("backbone.bottom_up."): x for name, x in weights.items()})
    pixels = torch.randint(256, (1, 3, 96, 128), generator=torch.Generator().manual_seed(1)).float()
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (PIXELS.mean, PIXELS.std))
    fold = "first convolution: BGR to RGB, scaled by 58.395, 57.12, 57.375, which is exact"
    worst = {}
    for published in (True, False):
        kwargs = instantiate({"_target_": "d2timm.backbone.stride_in_1x1"}) if published else {}
        ours = TimmBackbone("resnet50", timm_kwargs=kwargs)
        converted(weights, ours, *([fold] if published else [fold, "a tiny model has strides"]))
        with torch.no_grad():
            expected = [*theirs(pixels.flip(1) - mean.flip(0)).values()]
            worst[published] = difference(expected, ours((pixels - mean) / std))
    assert worst[stride_in_1x1] < 1e-5
    assert worst[not stride_in_1x1] > 1e-2  # so a note is necessary


@pytest.mark.parametrize(
    ("config", "smaller", "shapes"),
    [
        ("mask_rcnn_fpn", {}, zoo_mask_rcnn()),
        ("retinanet", {}, zoo_retinanet()),
        (
            "mask_rcnn_vitdet",
            {"embed_dim": 96, "depth": 3},
            vitdet(width=96, depth=3, head_width=8, everywhere=(2,)),
        ),
    ],
)
def test_layouts_equal_the_models_of_detectron2(
    config: str, smaller: dict[str, int], shapes: dict[str, tuple[int, ...]]
) -> None:
    cfg = model_zoo.get_config(f"common/models/{config}.py")
    if smaller:
        cfg.model.backbone.net.update(smaller)
    model = instantiate(cfg.model)
    buffers_of_early_files = {name for name in shapes if ".cell_anchors." in name}
    expected = {name: tuple(x.shape) for name, x in model.state_dict().items()}
    assert {name: shape for name, shape in shapes.items() if name not in buffers_of_early_files} == expected
