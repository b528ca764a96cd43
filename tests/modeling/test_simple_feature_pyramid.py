"""Simple feature pyramid: detectron2's levels, with correct padding and the names of the other necks."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling.backbone import vit
from detectron2.modeling.backbone.fpn import LastLevelMaxPool, LastLevelP6P7
from detectron2.structures import ImageList
from helpers.pools import Pools
from torch import Tensor

from d2timm import ConfigError, TimmBackbone
from d2timm.modeling.necks import named_shapes
from d2timm.modeling.simple_feature_pyramid import SimpleFeaturePyramid


class Wide(Pools):
    """16 channels, which two transposed convolutions halve."""

    def __init__(self, *strides: int) -> None:
        super().__init__(*strides)
        self._out_feature_channels = dict.fromkeys(self._out_feature_channels, 16)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {name: y.repeat(1, 8, 1, 1) for name, y in super().forward(x).items()}


def make_neck(**kwargs: Any) -> SimpleFeaturePyramid:
    torch.manual_seed(0)
    kwargs = {"in_features": ["res4"], "out_channels": 8, "top_block": LastLevelMaxPool(), **kwargs}
    return SimpleFeaturePyramid(Wide(4, 8, 16, 32), **kwargs)


@pytest.mark.parametrize("top_block", [None, LastLevelMaxPool(), LastLevelP6P7(8, 8, "p5")])
@pytest.mark.parametrize(
    ("feature", "scales", "strides"),
    [
        ("res4", (4.0, 2.0, 1.0, 0.5), (4, 8, 16, 32)),
        ("res4", (2.0, 1.0, 0.5), (8, 16, 32)),
        ("res5", (4.0, 2.0, 1.0, 0.5), (8, 16, 32, 64)),
        ("res4", (1.0,), (16,)),
    ],
)
def test_levels_are_as_declared_and_all_parameters_get_gradients(
    feature: str, scales: tuple[float, ...], strides: tuple[int, ...], top_block: Any
) -> None:
    neck = make_neck(in_features=[feature], scale_factors=scales, top_block=top_block)
    shapes = neck.output_shape()
    assert shapes == named_shapes(8, strides, top_block)
    assert neck.size_divisibility == neck.padding_constraints["size_divisibility"] == max(strides)
    height, width = max(32, *strides), 2 * max(32, *strides)
    outputs = neck(torch.randn(2, 3, height, width))
    assert list(outputs) == list(shapes)
    for name, shape in shapes.items():
        grid = (-(-height // shape.stride), -(-width // shape.stride))
        assert tuple(outputs[name].shape) == (2, 8, *grid)
    sum(y.square().sum() for y in outputs.values()).backward()
    assert [name for name, p in neck.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_levels_equal_those_of_detectron2() -> None:
    neck = make_neck()
    torch.manual_seed(0)
    theirs = vit.SimpleFeaturePyramid(
        Wide(4, 8, 16, 32), "res4", 8, (4.0, 2.0, 1.0, 0.5), top_block=LastLevelMaxPool(), norm="LN"
    )
    assert list(neck.state_dict()) == list(theirs.state_dict())
    x = torch.randn(1, 3, 64, 96)
    for y, expected in zip(neck(x).values(), theirs(x).values(), strict=True):
        assert torch.equal(y, expected)


def test_images_are_padded() -> None:
    def padded(**kwargs: Any) -> tuple[int, ...]:
        neck = make_neck(**kwargs)
        images = [torch.zeros(3, 50, 70), torch.zeros(3, 60, 40)]
        batch = ImageList.from_tensors(
            images, neck.size_divisibility, padding_constraints=neck.padding_constraints
        )
        return tuple(batch.tensor.shape[-2:])

    assert padded() == (64, 96)
    assert padded(square_pad=128) == (128, 128)
    assert padded(in_features=["res5"]) == (64, 128)


def test_backbone_has_only_the_name_bottom_up() -> None:
    backbone = TimmBackbone("test_vit", out_features=["res4"])
    neck = SimpleFeaturePyramid(backbone, ["res4"], 32, top_block=LastLevelMaxPool())
    assert neck.bottom_up is backbone
    state = neck.state_dict()
    assert {name.split(".")[0] for name in state} >= {"bottom_up", "simfp_2"}
    assert not any(name.startswith("net.") for name in state)
    assert len({tensor.data_ptr() for tensor in state.values()}) == len(state)
    other = copy.deepcopy(neck)
    assert other.bottom_up is not backbone
    assert neck.output_shape()["p4"] == ShapeSpec(channels=32, stride=16)


def test_last_block_of_a_plain_transformer_is_used() -> None:
    backbone = TimmBackbone("test_vit", out_features=["res4"])
    assert backbone.out_indices == (len(backbone.spec.features) - 1,)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"in_features": ["res3", "res4"]}, r"in_features=\['res3', 'res4'\]: .*one output"),
        ({"scale_factors": [3.0]}, r"scale_factors=\[3.0\]: .*\[4.0, 2.0, 1.0, 0.5\], each half"),
        ({"scale_factors": [4.0, 1.0]}, "each half"),
        ({"scale_factors": [1.0, 2.0]}, "each half"),
        ({"scale_factors": []}, "each half"),
        ({"norm": ""}, "norm='': .*such as LN"),
        (
            {"top_block": LastLevelP6P7(16, 8, "res5")},
            r"in_feature=res5: .*in_feature=p5 with in_channels=8",
        ),
    ],
)
def test_invalid_arguments_are_refused(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        make_neck(**kwargs)
    assert "\n" not in str(error.value)
