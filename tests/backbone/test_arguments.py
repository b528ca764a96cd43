"""Arguments are accepted as configs hold them, and each output gets the feature that fits it best."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import ListConfig, OmegaConf

from d2timm import ConfigError, TimmBackbone
from d2timm.backbone.arguments import check_output_arguments, merge_kwargs, parse_size, select_features
from d2timm.backbone.spec import Feature

PYRAMID = (4, 8, 16, 32)

native_strides = st.lists(st.sampled_from([1, 2, 4, 7, 8, 12, 14, 16, 17.14, 32, 64]), min_size=1)
output_strides = st.lists(st.sampled_from([1, 2, 4, 5, 8, 16, 32, 64]), min_size=1)


def features(*strides: float) -> list[Feature]:
    return [Feature(i, f"stages.{i}", 8, stride, True, 0) for i, stride in enumerate(strides)]


def selected(
    native: tuple[float, ...], strides: Any, out_indices: Any = None, used: list[int] | None = None
) -> list[int]:
    return [feature.index for feature in select_features(features(*native), strides, out_indices, used)]


# merge_kwargs


def test_named_arguments_are_added_to_timm_kwargs() -> None:
    merged = merge_kwargs({"depth": 3}, in_chans=4, drop_path_rate=0.1, output_stride=None)
    assert dict(merged) == {"depth": 3, "in_chans": 4, "drop_path_rate": 0.1}


@pytest.mark.parametrize("empty", [None, {}, OmegaConf.create({})])
def test_no_arguments_merge_to_none(empty: Any) -> None:
    assert merge_kwargs(empty, in_chans=None) == ()


@pytest.mark.parametrize("value", [4, 3])
def test_argument_in_both_places_is_an_error(value: int) -> None:
    """Even with the same value, because an override would change only one of them."""
    with pytest.raises(ConfigError) as error:
        merge_kwargs({"in_chans": value}, in_chans=4)
    assert "in_chans=4" in str(error.value)
    assert f"timm_kwargs.in_chans={value}" in str(error.value)


@pytest.mark.parametrize("kwargs", [{"in_chans": None}, {"in_chans": 0}, {"in_chans": False}])
def test_values_of_timm_kwargs_are_not_changed(kwargs: dict[str, Any]) -> None:
    assert dict(merge_kwargs(kwargs, in_chans=None)) == kwargs


@pytest.mark.parametrize("config", [dict, OmegaConf.create], ids=["plain", "OmegaConf"])
def test_merged_arguments_are_hashable(config: Any) -> None:
    kwargs = config({"depths": [1, [2, 3]], "overlay": {"input_size": [3, 96, 64]}, "act_layer": "relu"})
    merged = merge_kwargs(kwargs)
    assert merged == merge_kwargs(config(kwargs))
    assert hash(merged) == hash(merge_kwargs(config(kwargs)))
    assert dict(merged) == {
        "depths": (1, (2, 3)),
        "overlay": {"input_size": (3, 96, 64)},
        "act_layer": "relu",
    }
    assert isinstance(dict(merged)["overlay"], dict)  # timm requires a dict


@pytest.mark.parametrize("depths", [[1, 1, 2, 1], (1, 1, 2, 1), OmegaConf.create([1, 1, 2, 1])])
def test_backbone_accepts_lists_of_a_config(depths: Any) -> None:
    with torch.device("meta"):
        backbone = TimmBackbone("test_convnext", timm_kwargs={"depths": depths})
    assert backbone.spec.kwargs == (("depths", (1, 1, 2, 1)),)
    assert len(backbone.model.stages[2].blocks) == 2


@pytest.mark.parametrize("config", [dict, OmegaConf.create])
def test_backbone_accepts_mappings_of_a_config(config: Any) -> None:
    with torch.device("meta"):
        backbone = TimmBackbone(
            "test_resnet", timm_kwargs=config({"pretrained_cfg_overlay": {"input_size": [3, 96, 64]}})
        )
    assert backbone.spec.native_size == (96, 64)


# parse_size


@pytest.mark.parametrize(
    ("value", "parsed"),
    [
        (None, None),
        (False, None),
        (True, True),
        (96, (96, 96)),
        (1, (1, 1)),
        ((64, 96), (64, 96)),
        ([64, 96], (64, 96)),
        (OmegaConf.create([64, 96]), (64, 96)),
    ],
)
def test_valid_sizes(value: Any, parsed: Any) -> None:
    size = parse_size(value)
    assert size == parsed
    assert type(size) is type(parsed)


@pytest.mark.parametrize("wrong", [0, -32, 96.0, "96", "64x96", (96,), (), (64, 96, 3), (64, 0), (64, "96")])
def test_invalid_sizes(wrong: Any) -> None:
    with pytest.raises(ConfigError) as error:
        parse_size(wrong)
    text = str(error.value)
    assert f"fixed_input_size={wrong}" in text
    assert "(height, width)" in text
    assert "\n" not in text


# select_features


@pytest.mark.parametrize(
    ("native", "expected"),
    [
        ((2, 4, 8, 16, 32), [1, 2, 3, 4]),
        ((4, 8, 16, 32), [0, 1, 2, 3]),
        ((1, 2, 4, 8, 16, 32), [2, 3, 4, 5]),
        ((16, 32, 64), [0, 0, 0, 1]),  # starts late
        ((4, 8, 16), [0, 1, 2, 2]),  # ends early
        ((8, 16, 32), [0, 0, 1, 2]),
        ((8, 16, 16, 16), [0, 0, 2, 3]),  # several stages of one stride
        ((7, 14, 14, 14), [0, 0, 2, 3]),
        ((2, 2, 4, 4, 8, 16, 32), [3, 4, 5, 6]),  # the deepest of equal strides
    ],
)
def test_features_with_the_nearest_strides_are_selected(
    native: tuple[float, ...], expected: list[int]
) -> None:
    assert selected(native, PYRAMID) == expected


@pytest.mark.parametrize(
    ("depth", "outputs", "expected"),
    [
        (12, 4, [3, 5, 7, 11]),  # as in the detection models of XCiT
        (24, 4, [7, 11, 15, 23]),
        (6, 4, [1, 2, 3, 5]),
        (2, 4, [0, 0, 1, 1]),
        (1, 4, [0, 0, 0, 0]),
        (12, 1, [11]),
        (12, 2, [5, 11]),
        (12, 3, [4, 7, 11]),
    ],
)
def test_outputs_are_spread_evenly_over_blocks_of_one_stride(
    depth: int, outputs: int, expected: list[int]
) -> None:
    assert selected((16,) * depth, PYRAMID[:outputs]) == expected


def test_outputs_may_have_any_order() -> None:
    assert selected((4, 8, 16, 32), (32, 4, 4, 32)) == [3, 0, 0, 3]
    assert selected((16,) * 12, (16, 8, 16)) == selected((16,) * 12, (8, 16, 16))


@given(native=native_strides, strides=output_strides)
def test_no_other_feature_has_a_nearer_stride(native: list[float], strides: list[int]) -> None:
    for feature, stride in zip(select_features(features(*native), strides), strides, strict=True):
        best = min(abs(math.log2(other / stride)) for other in native)
        assert abs(math.log2(feature.stride / stride)) == pytest.approx(best)


@given(native=native_strides)
def test_deeper_outputs_use_features_at_least_as_deep(native: list[float]) -> None:
    native.sort()
    indices = selected(tuple(native), PYRAMID)
    assert indices == sorted(indices)


@pytest.mark.parametrize(
    ("out_indices", "expected"),
    [((0, 1, 2), [0, 1, 2]), ((-3, -1, 0), [2, 4, 0]), ((4, 4, -5), [4, 4, 0])],
)
def test_out_indices_count_from_either_end(out_indices: tuple[int, ...], expected: list[int]) -> None:
    assert selected((2, 4, 8, 16, 32), (4, 8, 16), out_indices) == expected


@pytest.mark.parametrize(
    ("used", "expected"), [([2], [11]), ([1, 2, 3], [4, 7, 11]), ([0, 1, 2, 3], [3, 5, 7, 11])]
)
def test_blocks_are_spread_over_used_outputs_only(used: list[int], expected: list[int]) -> None:
    assert selected((16,) * 12, PYRAMID, None, used) == expected


def test_out_indices_of_used_outputs() -> None:
    pyramid = (2, 4, 8, 16, 32)
    assert selected(pyramid, PYRAMID, (1, 2, 3, -1), [1, 3]) == [2, 4]
    with pytest.raises(ConfigError, match=r"out_indices=\[9, 2, 3, 4\]"):
        selected(pyramid, PYRAMID, (9, 2, 3, 4), [1, 3])


@pytest.mark.parametrize("wrong", [(0, 5), (-6, 0), (1, 2.0), (1, "2")])
def test_out_indices_out_of_range(wrong: tuple[Any, ...]) -> None:
    with pytest.raises(ConfigError) as error:
        selected((2, 4, 8, 16, 32), (4, 8), wrong)
    text = str(error.value)
    assert f"out_indices={list(wrong)}" in text
    assert "0 to 4" in text
    assert "\n" not in text


# check_output_arguments


@pytest.mark.parametrize("kind", [tuple, list, ListConfig])
def test_valid_outputs(kind: Any) -> None:
    names, strides = kind(["res2", "level_3"]), kind([4, 7])
    check_output_arguments(names, strides, None)
    check_output_arguments(names, strides, kind([0, -1]))


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
        (("values",), (4,), None, ("'values'", "torch")),  # a method of nn.ModuleDict
        (("a",), (0,), None, ("[0]", ">= 1")),
        (("a",), (4.0,), None, ("[4.0]", ">= 1")),
    ],
)
def test_invalid_outputs(remaps: Any, strides: Any, out_indices: Any, words: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError) as error:
        check_output_arguments(remaps, strides, out_indices)
    for word in words:
        assert word in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("used", [["res2"], ["res3", "res2"], ListConfig(["res3"])])
def test_valid_out_features(used: Any) -> None:
    check_output_arguments(["res2", "res3"], [4, 8], None, used)


@pytest.mark.parametrize("used", [[], ["res9"], ["res2", "res9"]])
def test_invalid_out_features(used: list[str]) -> None:
    with pytest.raises(ConfigError, match="res2, res3"):
        check_output_arguments(["res2", "res3"], [4, 8], None, used)
