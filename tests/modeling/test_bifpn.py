"""BiFPN: declared shapes, the connections of the paper, and gradients for all parameters."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from detectron2.modeling.backbone.fpn import LastLevelMaxPool, LastLevelP6P7
from helpers.pools import NAMES, Pools
from torch import Tensor, nn

from d2timm import ConfigError
from d2timm.modeling.bifpn import BiFPN
from d2timm.modeling.necks import named_shapes

SIDE = 128


def make_neck(*strides: int, **kwargs: Any) -> BiFPN:
    torch.manual_seed(0)
    kwargs = {"out_channels": 32, "top_block": LastLevelMaxPool(), **kwargs}
    return BiFPN(Pools(*strides), NAMES[: len(strides)], **kwargs)


@pytest.mark.parametrize("norm", ["", "GN"])
@pytest.mark.parametrize("num_layers", [1, 3])
@pytest.mark.parametrize("top_block", [None, LastLevelMaxPool(), LastLevelP6P7(32, 32, "p5")])
@pytest.mark.parametrize("strides", [(4, 8, 16, 32), (8, 16)])
def test_levels_are_as_declared_and_all_parameters_get_gradients(
    strides: tuple[int, ...], top_block: Any, num_layers: int, norm: str
) -> None:
    neck = make_neck(*strides, top_block=top_block, num_layers=num_layers, norm=norm)
    shapes = neck.output_shape()
    assert shapes == named_shapes(32, strides, top_block)
    coarsest = max(shape.stride for shape in shapes.values())
    assert neck.size_divisibility == neck.padding_constraints["size_divisibility"] == coarsest
    outputs = neck(torch.randn(2, 3, coarsest, 2 * coarsest))
    assert list(outputs) == list(shapes)
    for name, shape in shapes.items():
        grid = (coarsest // shape.stride, 2 * coarsest // shape.stride)
        assert tuple(outputs[name].shape) == (2, 32, *grid)
    sum(y.square().sum() for y in outputs.values()).backward()
    assert [name for name, p in neck.named_parameters() if p.grad is None or not p.grad.any()] == []


def simplified(neck: BiFPN) -> BiFPN:
    """Replace its convolutions by identities, so that only the connections remain."""

    for layer in neck.layers:
        for fusion in (*layer.downward, *layer.upward):
            fusion.conv = nn.Identity()
            nn.init.uniform_(fusion.weights, 0.5, 2.0)
    return neck


def fuse(weights: Tensor, *maps: Tensor) -> Tensor:
    """The paper's fast normalized fusion."""
    return F.silu(sum(w * x for w, x in zip(weights, maps, strict=True)) / (weights.sum() + 1e-4))


def up(x: Tensor) -> Tensor:
    return x.repeat_interleave(2, -1).repeat_interleave(2, -2)


def down(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 3, 2, 1)


def test_connections_are_as_in_the_paper() -> None:
    neck = simplified(make_neck(8, 16, 32, num_layers=1))
    x = torch.randn(1, 3, SIDE, SIDE)
    features = neck.bottom_up(x)
    p3, p4, p5 = (conv(features[name]) for name, conv in zip(NAMES, neck.laterals, strict=False))
    p6 = p5[..., ::2, ::2]  # from the top block, before the fusion
    (layer,) = neck.layers
    w3, w4, w5 = (fusion.weights for fusion in layer.downward)
    t5 = fuse(w5, p5, up(p6))
    t4 = fuse(w4, p4, up(t5))
    v4, v5, v6 = (fusion.weights for fusion in layer.upward)
    o3 = fuse(w3, p3, up(t4))
    o4 = fuse(v4, p4, t4, down(o3))
    o5 = fuse(v5, p5, t5, down(o4))
    o6 = fuse(v6, p6, down(o5))
    outputs = neck(x)
    for name, expected in {"p3": o3, "p4": o4, "p5": o5, "p6": o6}.items():
        torch.testing.assert_close(outputs[name], expected)


def test_two_levels() -> None:
    neck = simplified(make_neck(8, 16, top_block=None, num_layers=1))
    x = torch.randn(1, 3, SIDE, SIDE)
    fine, coarse = (conv(y) for conv, y in zip(neck.laterals, neck.bottom_up(x).values(), strict=True))
    (layer,) = neck.layers
    first = fuse(layer.downward[0].weights, fine, up(coarse))
    second = fuse(layer.upward[0].weights, coarse, down(first))
    outputs = neck(x)
    torch.testing.assert_close(outputs["p3"], first)
    torch.testing.assert_close(outputs["p4"], second)


def test_layers_are_applied_in_turn() -> None:
    neck, x = make_neck(8, 16, 32, num_layers=2), torch.randn(1, 3, SIDE, SIDE)
    twice = neck(x)
    second = neck.layers.pop(1)
    for y, expected in zip(second(list(neck(x).values())), twice.values(), strict=True):
        torch.testing.assert_close(y, expected)


def test_negative_weights_count_as_zero() -> None:
    neck = simplified(make_neck(8, 16, top_block=None, num_layers=1))
    (layer,) = neck.layers
    with torch.no_grad():
        layer.downward[0].weights.copy_(torch.tensor([2.0, -3.0]))
    x = torch.randn(1, 3, SIDE, SIDE)
    fine = neck.laterals[0](neck.bottom_up(x)["res2"])
    torch.testing.assert_close(neck(x)["p3"], F.silu(fine), rtol=1e-3, atol=1e-4)


def test_sizes_are_rounded_up_if_a_grid_cannot_be_halved() -> None:
    neck = make_neck(8, 16, 32)
    sides = {name: y.shape[-1] for name, y in neck(torch.randn(1, 3, 96, 96)).items()}
    assert sides == {"p3": 12, "p4": 6, "p5": 3, "p6": 2}


def test_state_has_each_tensor_once() -> None:
    state = make_neck(4, 8, 16, 32, top_block=LastLevelP6P7(32, 32, "p5")).state_dict()
    assert len({tensor.data_ptr() for tensor in state.values()}) == len(state)


@pytest.mark.parametrize(
    ("strides", "kwargs", "message"),
    [
        ((16,), {"top_block": None}, "at least two levels"),
        ((8, 16), {"num_layers": 0}, "num_layers=0: .*at least one"),
        ((8, 16), {"top_block": LastLevelP6P7(2, 32, "res3")}, "in_feature=res3: .*in_feature=p4"),
        ((8, 32), {}, "double the stride"),
    ],
)
def test_invalid_arguments_are_refused(
    strides: tuple[int, ...], kwargs: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        make_neck(*strides, **kwargs)
