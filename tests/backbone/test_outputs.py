"""Each output has a name, a stride, and the feature that fits it best."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import ListConfig

from d2timm import ConfigError
from d2timm.backbone.arguments import check_outputs, choose
from d2timm.backbone.spec import Feature

PYRAMID = (4, 8, 16, 32)

strides_of_models = st.lists(st.sampled_from([1, 2, 4, 7, 8, 12, 14, 16, 17.14, 32, 64]), min_size=1)


def features(*strides: float) -> list[Feature]:
    return [Feature(i, f"stages.{i}", 8, stride, True, 0) for i, stride in enumerate(strides)]


def chosen(native: tuple[float, ...], strides: Any, out_indices: Any = None) -> list[int]:
    return [feature.index for feature in choose(features(*native), strides, out_indices)]


@pytest.mark.parametrize(
    ("native", "expected"),
    [
        ((2, 4, 8, 16, 32), [1, 2, 3, 4]),
        ((4, 8, 16, 32), [0, 1, 2, 3]),
        ((1, 2, 4, 8, 16, 32), [2, 3, 4, 5]),
        ((16, 32, 64), [0, 0, 0, 1]),  # begins late
        ((4, 8, 16), [0, 1, 2, 2]),  # ends early
        ((8, 16, 32), [0, 0, 1, 2]),
        ((8, 16, 16, 16), [0, 0, 2, 3]),  # stages of one stride
        ((7, 14, 14, 14), [0, 0, 2, 3]),
        ((2, 2, 4, 4, 8, 16, 32), [3, 4, 5, 6]),  # the deepest of equals
    ],
)
def test_features_whose_strides_are_nearest(native: tuple[float, ...], expected: list[int]) -> None:
    assert chosen(native, PYRAMID) == expected


@pytest.mark.parametrize(
    ("depth", "outputs", "expected"),
    [
        (12, 4, [3, 5, 7, 11]),  # those of XCiT's detection models
        (24, 4, [7, 11, 15, 23]),
        (6, 4, [1, 2, 3, 5]),
        (2, 4, [0, 0, 1, 1]),
        (1, 4, [0, 0, 0, 0]),
        (12, 1, [11]),
        (12, 2, [5, 11]),
        (12, 3, [4, 7, 11]),
    ],
)
def test_blocks_of_one_stride_are_spread_evenly(depth: int, outputs: int, expected: list[int]) -> None:
    assert chosen((16,) * depth, PYRAMID[:outputs]) == expected


def test_outputs_need_no_order() -> None:
    assert chosen((4, 8, 16, 32), (32, 4, 4, 32)) == [3, 0, 0, 3]
    assert chosen((16,) * 12, (16, 8, 16)) == chosen((16,) * 12, (8, 16, 16))


@given(native=strides_of_models, strides=st.lists(st.sampled_from([1, 2, 4, 5, 8, 16, 32, 64]), min_size=1))
def test_no_feature_has_a_stride_that_fits_better(native: list[float], strides: list[int]) -> None:
    for feature, stride in zip(choose(features(*native), strides, None), strides, strict=True):
        best = min(abs(math.log2(other / stride)) for other in native)
        assert abs(math.log2(feature.stride / stride)) == pytest.approx(best)


@given(native=strides_of_models)
def test_deeper_levels_are_made_of_no_shallower_features(native: list[float]) -> None:
    native.sort()
    indices = chosen(tuple(native), PYRAMID)
    assert indices == sorted(indices)


@pytest.mark.parametrize(
    ("asked", "expected"), [((0, 1, 2), [0, 1, 2]), ((-3, -1, 0), [2, 4, 0]), ((4, 4, -5), [4, 4, 0])]
)
def test_features_may_be_named_from_either_end(asked: tuple[int, ...], expected: list[int]) -> None:
    assert chosen((2, 4, 8, 16, 32), (4, 8, 16), asked) == expected


@pytest.mark.parametrize(
    ("used", "expected"), [([2], [11]), ([1, 2, 3], [4, 7, 11]), ([0, 1, 2, 3], [3, 5, 7, 11])]
)
def test_blocks_are_spread_over_the_outputs_that_are_used(used: list[int], expected: list[int]) -> None:
    blocks = features(*(16,) * 12)
    assert [feature.index for feature in choose(blocks, PYRAMID, None, used)] == expected


def test_named_features_of_the_outputs_that_are_used() -> None:
    pyramid = features(2, 4, 8, 16, 32)
    assert [f.index for f in choose(pyramid, PYRAMID, (1, 2, 3, -1), [1, 3])] == [2, 4]
    with pytest.raises(ConfigError, match=r"out_indices=\[9, 2, 3, 4\]"):
        choose(pyramid, PYRAMID, (9, 2, 3, 4), [1, 3])


@pytest.mark.parametrize("wrong", [(0, 5), (-6, 0), (1, 2.0), (1, "2")])
def test_index_that_no_feature_has(wrong: tuple[Any, ...]) -> None:
    with pytest.raises(ConfigError) as error:
        chosen((2, 4, 8, 16, 32), (4, 8), wrong)
    text = str(error.value)
    assert text.startswith(f"out_indices={list(wrong)}: ")
    assert "5 features: 0 to 4" in text
    assert "\n" not in text


@pytest.mark.parametrize("kind", [tuple, list, ListConfig])
def test_outputs_that_can_be(kind: Any) -> None:
    names, strides = kind(["res2", "level_3"]), kind([4, 7])
    check_outputs(names, strides, None)
    check_outputs(names, strides, kind([0, -1]))


@pytest.mark.parametrize(
    ("remaps", "strides", "out_indices", "words"),
    [
        (("a", "b"), (4,), None, ("remaps has 2", "strides has 1")),
        (("a",), (4,), (1, 2), ("remaps has 1", "out_indices has 2")),
        ((), (), None, ("at least one", "remaps has 0")),
        ("a", (4,), None, ("remaps=a", "a list")),
        (("a",), 4, None, ("strides=4", "a list")),
        (("a",), (4,), 1, ("out_indices=1", "a list")),
        (("a", "a"), (4, 8), None, ("['a', 'a']", "same name")),
        (("a.b",), (4,), None, ("['a.b']", "identifier")),
        ((3,), (4,), None, ("[3]", "identifier")),
        (("values",), (4,), None, ("'values'", "torch's own")),  # a method of nn.ModuleDict
        (("a",), (0,), None, ("[0]", ">= 1")),
        (("a",), (4.0,), None, ("[4.0]", ">= 1")),
    ],
)
def test_outputs_that_cannot_be(remaps: Any, strides: Any, out_indices: Any, words: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError) as error:
        check_outputs(remaps, strides, out_indices)
    for word in words:
        assert word in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("used", [["res2"], ["res3", "res2"], ListConfig(["res3"])])
def test_outputs_that_are_used(used: Any) -> None:
    check_outputs(["res2", "res3"], [4, 8], None, used)


@pytest.mark.parametrize("used", [[], ["res9"], ["res2", "res9"]])
def test_outputs_that_cannot_be_used(used: list[str]) -> None:
    with pytest.raises(ConfigError, match="res2, res3"):
        check_outputs(["res2", "res3"], [4, 8], None, used)
