"""Names, anchors and scales of a neck's levels follow from strides."""

from __future__ import annotations

from typing import Any

import pytest
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.backbone.fpn import LastLevelMaxPool, LastLevelP6P7
from torch import nn

from d2timm import ConfigError
from d2timm.levels import anchor_sizes, anchors_per_cell, level_names, level_strides, pooler_scales

PYRAMID = (4, 8, 16, 32)


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
