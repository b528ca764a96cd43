"""Names, anchors and scales of a neck's levels follow from the strides."""

from __future__ import annotations

from typing import Any

import pytest
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.backbone.fpn import LastLevelMaxPool, LastLevelP6P7
from torch import nn

from d2timm import ConfigError
from d2timm.modeling.levels import (
    anchor_sizes,
    anchors_per_cell,
    coarse_features,
    finest_stride,
    fused_top_block,
    last_name,
    level_names,
    level_strides,
    nearest_feature,
    pooler_scales,
    pyramid_scales,
    taken_strides,
)

PYRAMID = (4, 8, 16, 32)
NAMES = ("res2", "res3", "res4", "res5")


@pytest.mark.parametrize(
    ("strides", "top_block", "expected"),
    [
        (PYRAMID, None, [4, 8, 16, 32]),
        (PYRAMID, LastLevelMaxPool(), [4, 8, 16, 32, 64]),
        ((8, 16, 32), LastLevelP6P7(8, 8), [8, 16, 32, 64, 128]),
        ((16,), None, [16]),
        ((1, 2), None, [1, 2]),
        (PYRAMID, nn.Identity(), [4, 8, 16, 32]),  # a block that adds no levels
    ],
)
def test_levels_of_the_backbone_and_of_the_top_block(
    strides: tuple[int, ...], top_block: Any, expected: list[int]
) -> None:
    assert level_strides(strides, top_block) == expected


@pytest.mark.parametrize(
    ("strides", "top_block", "expected"),
    [
        (PYRAMID, LastLevelMaxPool(), ["p2", "p3", "p4", "p5", "p6"]),
        ((8, 16, 32), LastLevelP6P7(8, 8), ["p3", "p4", "p5", "p6", "p7"]),
        ((1, 2), None, ["p0", "p1"]),
    ],
)
def test_names_are_as_in_the_fpn_paper(strides: tuple[int, ...], top_block: Any, expected: list[str]) -> None:
    assert level_names(strides, top_block) == expected


@pytest.mark.parametrize(
    ("strides", "word"),
    [
        ((7, 14), "powers of two"),
        ((0, 8), "powers of two"),
        ((-4, 8), "powers of two"),
        ((4, 16), "double"),
        ((32, 16), "double"),
        ((8, 8), "double"),
    ],
)
@pytest.mark.parametrize("function", [level_strides, level_names, anchor_sizes, pooler_scales])
def test_invalid_strides_are_refused(function: Any, strides: tuple[int, ...], word: str) -> None:
    with pytest.raises(ConfigError, match=word) as error:
        function(strides)
    assert str(list(strides)) in str(error.value)
    assert "\n" not in str(error.value)


def test_anchors_grow_with_the_stride() -> None:
    assert anchor_sizes(PYRAMID) == [[32.0], [64.0], [128.0], [256.0]]
    assert anchor_sizes(PYRAMID, LastLevelMaxPool())[-1] == [512.0]  # as in the FPN paper
    assert anchor_sizes((8, 16), scales=(4.0, 5.0)) == [[32.0, 40.0], [64.0, 80.0]]


@pytest.mark.parametrize(("scales", "finest"), [((8.0,), 4), ((4.0, 5.0, 6.0), 8)])
def test_single_level_has_the_anchors_of_five_levels(scales: tuple[float, ...], finest: int) -> None:
    pyramid = anchor_sizes([finest * 2**k for k in range(4)], LastLevelMaxPool(), scales, finest)
    assert len(pyramid) == 5
    for stride in (8, 16, 32):
        assert anchor_sizes([stride], None, scales, finest) == [[side for level in pyramid for side in level]]
    assert anchor_sizes([16], LastLevelMaxPool()) == [[128.0], [256.0]], "two levels have their own anchors"


@pytest.mark.parametrize("ratios", [[1.0], [0.5, 1.0, 2.0], [[0.5, 1.0]]])
@pytest.mark.parametrize("scales", [(8.0,), (4.0, 5.0, 6.0)])
@pytest.mark.parametrize("strides", [PYRAMID, (16,)])
def test_anchors_per_cell_agree_with_detectron2(
    ratios: list[Any], scales: tuple[float, ...], strides: tuple[int, ...]
) -> None:
    sizes = anchor_sizes(strides, scales=scales)
    generator = DefaultAnchorGenerator(sizes=sizes, aspect_ratios=ratios, strides=list(strides))
    assert generator.num_anchors == [anchors_per_cell(ratios, sizes)] * len(strides)


def test_anchors_per_cell_if_levels_share_sizes() -> None:
    generator = DefaultAnchorGenerator(sizes=[32, 64], aspect_ratios=[1.0], strides=list(PYRAMID))
    assert generator.num_anchors == [anchors_per_cell([1.0], [32, 64])] * len(PYRAMID) == [2] * 4


def test_pooler_scales_are_inverse_strides() -> None:
    assert pooler_scales(PYRAMID) == [1 / 4, 1 / 8, 1 / 16, 1 / 32]


def test_strides_of_the_outputs_that_a_neck_takes() -> None:
    assert taken_strides(NAMES, NAMES, PYRAMID) == list(PYRAMID)
    assert taken_strides(["res3", "res4"], NAMES, PYRAMID) == [8, 16]
    assert taken_strides(NAMES, NAMES, PYRAMID, finest=8) == [8, 16, 32]
    assert coarse_features(NAMES, PYRAMID) == list(NAMES)
    assert coarse_features(NAMES, PYRAMID, finest=8) == ["res3", "res4", "res5"]
    assert coarse_features(NAMES, PYRAMID, finest=32) == ["res5"]
    assert last_name(PYRAMID) == "p5"
    assert last_name([8, 16]) == "p4"


def test_missing_outputs_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"in_features=\['res9'\]: .*'res9'.* res2, res3, res4, res5"):
        taken_strides(["res9"], NAMES, PYRAMID)
    with pytest.raises(ConfigError, match=r"in_features=\[\]: .*stride >= 1"):
        taken_strides([], NAMES, PYRAMID)
    with pytest.raises(ConfigError, match=r"in_features=\['res2'\]: .*stride >= 8"):
        taken_strides(["res2"], NAMES, PYRAMID, finest=8)
    with pytest.raises(ConfigError, match=r"strides=\[4\]: .*>= 8"):
        coarse_features(["res2"], [4], finest=8)


@pytest.mark.parametrize(
    ("strides", "expected"), [((4, 8, 16, 32), 16), ((2, 4), 4), ((32, 64), 32), ((8, 32), 8), ((14, 28), 14)]
)
def test_output_with_the_nearest_stride(strides: tuple[int, ...], expected: int) -> None:
    names = [f"stride{stride}" for stride in strides]
    assert nearest_feature(names, strides) == [f"stride{expected}"]


@pytest.mark.parametrize(
    ("feature", "finest", "expected"),
    [
        ("res4", 1, [4.0, 2.0, 1.0, 0.5]),
        ("res4", 8, [2.0, 1.0, 0.5]),
        ("res5", 8, [4.0, 2.0, 1.0, 0.5]),
        ("res2", 8, [0.5]),
    ],
)
def test_levels_of_a_simple_feature_pyramid(feature: str, finest: int, expected: list[float]) -> None:
    scales = pyramid_scales([feature], NAMES, PYRAMID, finest)
    assert scales == expected
    strides = taken_strides([feature], NAMES, PYRAMID, scale_factors=scales)
    assert strides == [round(dict(zip(NAMES, PYRAMID, strict=True))[feature] / scale) for scale in scales]
    assert finest_stride(strides) == strides[0] >= finest
    assert taken_strides([feature], NAMES, PYRAMID, 8, scales) == [s for s in strides if s >= 8]


def test_invalid_simple_feature_pyramids_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"stride 4 .*stride >= 16"):
        pyramid_scales(["res2"], NAMES, PYRAMID, 16)
    with pytest.raises(ConfigError, match="scale_factors takes one output"):
        taken_strides(["res2", "res3"], NAMES, PYRAMID, scale_factors=[1.0])
    with pytest.raises(ConfigError, match="powers of two"):
        finest_stride(taken_strides(["res2"], NAMES, PYRAMID, scale_factors=[0.75]))


@pytest.mark.parametrize("function", [coarse_features, nearest_feature])
@pytest.mark.parametrize(
    ("remaps", "strides", "message"),
    [
        (["a"], [4, 8], r"remaps has 1.*strides has 2"),
        ([], [], r"remaps has 0.*strides has 0"),
        (["a", "b", "a"], [4, 8, 16], r"remaps=\['a', 'b', 'a'\]: "),
        (["a"], [0], r"strides=\[0\]: .*>= 1"),
        (["a"], ["8"], r"strides=\['8'\]: .*>= 1"),
        (["a"], 4, r"strides=4: .*list"),
        (["a"], None, r"strides=None: .*list"),
        ("a", [4], r"remaps=a: .*list"),
    ],
)
def test_invalid_outputs_are_refused(function: Any, remaps: Any, strides: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        function(remaps, strides)
    with pytest.raises(ConfigError, match=message):
        taken_strides(["a"], remaps, strides)


def test_top_block_of_a_neck_that_fuses_it() -> None:
    block = LastLevelMaxPool()
    assert fused_top_block(block, 3) is block
    assert fused_top_block(block) is fused_top_block(block, None) is fused_top_block(None, 3) is None
