"""PAFPN: shapes as of an FPN, the connections of the paper, gradients for all parameters; SingleLevel."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling.backbone.fpn import FPN, LastLevelMaxPool, LastLevelP6P7
from helpers.pools import NAMES, Pools
from torch import nn

from d2timm import ConfigError
from d2timm.modeling.necks import PAFPN, SingleLevel, level_shapes, named_shapes


def make_neck(cls: type[FPN] = PAFPN, strides: tuple[int, ...] = (4, 8, 16, 32), **kwargs: Any) -> FPN:
    torch.manual_seed(0)
    return cls(Pools(*strides), NAMES[: len(strides)], out_channels=8, **kwargs)


@pytest.mark.parametrize("size", [(64, 64), (96, 160), (32, 32), (224, 32)])
@pytest.mark.parametrize("top_block", [None, LastLevelMaxPool(), LastLevelP6P7(8, 8, "p5")])
@pytest.mark.parametrize("fuse_type", ["sum", "avg"])
def test_levels_are_as_declared_and_have_the_shapes_of_fpn(
    size: tuple[int, int], top_block: Any, fuse_type: str
) -> None:
    x = torch.randn(2, 3, *size)
    neck, fpn = (make_neck(cls, top_block=top_block, fuse_type=fuse_type) for cls in (PAFPN, FPN))
    outputs, expected = neck(x), fpn(x)
    assert {name: y.shape for name, y in outputs.items()} == {name: y.shape for name, y in expected.items()}
    assert list(outputs) == list(expected)
    assert neck.output_shape() == fpn.output_shape()
    assert list(neck.output_shape()) == list(outputs)
    for name, shape in neck.output_shape().items():
        grid = [-(-side // shape.stride) for side in size]
        assert list(outputs[name].shape) == [2, shape.channels, *grid]
    assert neck.size_divisibility == fpn.size_divisibility == 32
    assert neck.padding_constraints == fpn.padding_constraints


@pytest.mark.parametrize("strides", [(4,), (2, 4), (8, 16, 32)])
def test_other_numbers_of_levels(strides: tuple[int, ...]) -> None:
    neck = make_neck(strides=strides, top_block=LastLevelMaxPool())
    outputs = neck(torch.zeros(1, 3, 64, 64))
    assert [64 // y.shape[-1] for y in outputs.values()] == [*strides, 2 * strides[-1]]
    assert [shape.stride for shape in neck.output_shape().values()] == [*strides, 2 * strides[-1]]


def test_finest_level_equals_that_of_fpn() -> None:
    x = torch.randn(1, 3, 64, 64)
    assert torch.equal(make_neck()(x)["p2"], make_neck(FPN)(x)["p2"])


@pytest.mark.parametrize(("fuse_type", "share"), [("sum", 1.0), ("avg", 0.5)])
def test_connections_are_as_in_the_paper(fuse_type: str, share: float) -> None:
    neck, x = make_neck(fuse_type=fuse_type), torch.randn(1, 3, 64, 64)
    pyramid = make_neck(FPN, fuse_type=fuse_type)(x)
    with torch.no_grad():
        for name in ("p3", "p4", "p5"):
            for conv, weight in ((neck.downs[name], 0.5), (neck.fuses[name], 2.0)):
                nn.init.zeros_(conv.weight)
                nn.init.zeros_(conv.bias)
                conv.weight[range(8), range(8), 1, 1] = weight  # of the central pixel, for each channel alone
    expected = {"p2": pyramid["p2"]}
    for fine, coarse in (("p2", "p3"), ("p3", "p4"), ("p4", "p5")):
        down = (0.5 * expected[fine][..., ::2, ::2]).relu()
        expected[coarse] = (2.0 * share * (pyramid[coarse] + down)).relu()
    for name, y in neck(x).items():
        torch.testing.assert_close(y, expected[name])


def test_top_block_starts_from_the_last_level_of_the_path() -> None:
    outputs = make_neck(top_block=LastLevelMaxPool())(torch.randn(1, 3, 64, 64))
    assert torch.equal(outputs["p6"], outputs["p5"][..., ::2, ::2])


def test_top_block_that_starts_from_the_backbone_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"in_feature=res5: .*in_feature=p5 with in_channels=8"):
        make_neck(top_block=LastLevelP6P7(2, 8))


@pytest.mark.parametrize("norm", ["", "GN"])
def test_every_parameter_has_a_gradient(norm: str) -> None:
    torch.manual_seed(0)
    neck = PAFPN(Pools(4, 8, 16, 32), NAMES, 32, norm=norm, top_block=LastLevelP6P7(32, 32, "p5"))
    sum(y.square().mean() for y in neck(torch.randn(2, 3, 64, 64)).values()).backward()
    assert [name for name, p in neck.named_parameters() if p.grad is None or not p.grad.any()] == []
    biases = {name for name, _ in neck.named_parameters() if name.endswith("downs.p3.bias")}
    assert bool(biases) == (norm == "")


def test_state_has_each_tensor_once() -> None:
    state = make_neck(top_block=LastLevelP6P7(8, 8, "p5")).state_dict()
    assert len({tensor.data_ptr() for tensor in state.values()}) == len(state)


def test_shapes_for_heads() -> None:
    assert level_shapes(16, [8, 16], LastLevelMaxPool()) == [
        ShapeSpec(channels=16, stride=stride) for stride in (8, 16, 32)
    ]
    shapes = named_shapes(16, [8, 16], LastLevelMaxPool())
    assert list(shapes) == ["p3", "p4", "p5"]
    assert list(shapes.values()) == level_shapes(16, [8, 16], LastLevelMaxPool())


@pytest.mark.parametrize("norm", ["", "GN"])
def test_single_level_is_a_convolution_of_one_output(norm: str) -> None:
    backbone, x = Pools(4, 8, 16, 32), torch.randn(2, 3, 64, 96)
    neck = SingleLevel(backbone, ["res4"], 32, norm=norm)
    outputs = neck(x)
    assert neck.output_shape() == {"p4": ShapeSpec(channels=32, stride=16)}
    assert {name: tuple(y.shape) for name, y in outputs.items()} == {"p4": (2, 32, 4, 6)}
    assert torch.equal(outputs["p4"], neck.lateral(backbone(x)["res4"]))
    assert (neck.lateral.bias is None) == bool(norm)
    outputs["p4"].square().mean().backward()
    assert all(p.grad is not None and p.grad.any() for p in neck.parameters())
    assert list(neck.state_dict()) == [f"lateral.{name}" for name in neck.lateral.state_dict()]


def test_single_level_combines_its_padding_with_that_of_the_backbone() -> None:
    backbone = Pools(4, 8, 16, 32)
    neck = SingleLevel(backbone, ["res4"], 8)
    assert neck.size_divisibility == neck.padding_constraints["size_divisibility"] == 16

    class Padded(Pools):
        size_divisibility = 24
        padding_constraints = {"square_size": 96}  # noqa: RUF012

    neck = SingleLevel(Padded(4, 8, 16, 32), ["res4"], 8)
    assert neck.size_divisibility == 48
    assert neck.padding_constraints == {"square_size": 96, "size_divisibility": 48}


@pytest.mark.parametrize("features", [[], ["res3", "res4"]])
def test_single_level_takes_exactly_one_output(features: list[str]) -> None:
    with pytest.raises(ConfigError, match="takes one output"):
        SingleLevel(Pools(4, 8, 16, 32), features, 8)
