"""Names, anchors and scales of a neck's levels follow from strides."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.backbone import fpn
from detectron2.modeling.backbone.fpn import LastLevelMaxPool, LastLevelP6P7
from torch import nn

from d2timm import ConfigError
from d2timm.levels import (
    TOP_BLOCKS,
    anchor_sizes,
    anchors_per_cell,
    coarse_features,
    last_name,
    level_names,
    level_strides,
    pooler_scales,
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
        (PYRAMID, nn.Identity(), [4, 8, 16, 32]),  # a block that makes no level
    ],
)
def test_levels_are_those_of_the_backbone_and_of_the_top_block(
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
def test_names_are_those_of_the_fpn_paper(
    strides: tuple[int, ...], top_block: Any, expected: list[str]
) -> None:
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
def test_strides_that_no_pyramid_has(function: Any, strides: tuple[int, ...], word: str) -> None:
    with pytest.raises(ConfigError, match=word) as error:
        function(strides)
    assert str(list(strides)) in str(error.value)
    assert "\n" not in str(error.value)


def test_anchors_grow_with_the_stride() -> None:
    assert anchor_sizes(PYRAMID) == [[32.0], [64.0], [128.0], [256.0]]
    assert anchor_sizes(PYRAMID, LastLevelMaxPool())[-1] == [512.0]  # those of the FPN paper
    assert anchor_sizes((8, 16), scales=(4.0, 5.0)) == [[32.0, 40.0], [64.0, 80.0]]


@pytest.mark.parametrize("ratios", [(1.0,), (0.5, 1.0, 2.0)])
@pytest.mark.parametrize("scales", [(8.0,), (4.0, 5.0, 6.0)])
def test_anchors_per_cell_are_those_that_detectron2_makes(
    ratios: tuple[float, ...], scales: tuple[float, ...]
) -> None:
    generator = DefaultAnchorGenerator(
        sizes=anchor_sizes(PYRAMID, scales=scales), aspect_ratios=[list(ratios)], strides=list(PYRAMID)
    )
    assert generator.num_anchors == [anchors_per_cell(ratios, scales)] * len(PYRAMID)


def test_pooler_scales_are_inverse_strides() -> None:
    assert pooler_scales(PYRAMID) == [1 / 4, 1 / 8, 1 / 16, 1 / 32]


@pytest.mark.parametrize(("name", "arguments"), [("LastLevelMaxPool", ()), ("LastLevelP6P7", (8, 8))])
def test_top_blocks_are_as_detectron2_makes_them(name: str, arguments: tuple[int, ...]) -> None:
    block = getattr(fpn, name)(*arguments)
    assert TOP_BLOCKS[name] == (block.num_levels, block.in_feature)
    assert len(block(torch.zeros(1, 8, 16, 16))) == TOP_BLOCKS[name].num_levels
    assert level_strides(PYRAMID, TOP_BLOCKS[name]) == level_strides(PYRAMID, block)


def test_all_top_blocks_of_detectron2_are_known() -> None:
    assert set(TOP_BLOCKS) == {name for name in vars(fpn) if name.startswith("LastLevel")}


def test_levels_of_what_a_neck_takes() -> None:
    assert taken_strides(NAMES, NAMES, PYRAMID) == list(PYRAMID)
    assert taken_strides(["res3", "res4"], NAMES, PYRAMID) == [8, 16]
    assert taken_strides(NAMES, NAMES, PYRAMID, finest=8) == [8, 16, 32]
    assert coarse_features(NAMES, PYRAMID) == ["res3", "res4", "res5"]
    assert coarse_features(NAMES, PYRAMID, finest=32) == ["res5"]
    assert last_name(PYRAMID) == "p5"
    assert last_name([8, 16]) == "p4"


def test_outputs_that_are_not_there() -> None:
    with pytest.raises(
        ConfigError, match=r"in_features=\['res9'\]: the backbone has no 'res9', it gives res2, "
    ):
        taken_strides(["res9"], NAMES, PYRAMID)
    with pytest.raises(ConfigError, match=r"in_features=\[\]: at least one of stride >= 1 is needed"):
        taken_strides([], NAMES, PYRAMID)
    with pytest.raises(ConfigError, match=r"in_features=\['res2'\]: at least one of stride >= 8 is needed"):
        taken_strides(["res2"], NAMES, PYRAMID, finest=8)
    with pytest.raises(ConfigError, match=r"strides=\[4\]: the neck needs at least one of >= 8"):
        coarse_features(["res2"], [4])
