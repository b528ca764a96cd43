"""Arguments as configs hold them, in the forms that the probe takes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from d2timm import ConfigError, TimmBackbone
from d2timm.backbone.arguments import merge_kwargs, parse_size

# Keywords


def test_named_ones_join_those_of_the_user() -> None:
    merged = merge_kwargs({"depth": 3}, in_chans=4, drop_path_rate=0.1, output_stride=None)
    assert dict(merged) == {"depth": 3, "in_chans": 4, "drop_path_rate": 0.1}


@pytest.mark.parametrize("nothing", [None, {}, OmegaConf.create({})])
def test_nothing_given_is_nothing(nothing: Any) -> None:
    assert merge_kwargs(nothing, in_chans=None) == ()


@pytest.mark.parametrize("value", [4, 3])
def test_given_twice_is_an_error(value: int) -> None:
    """Even with the same value: one of them would be changed without the other."""
    with pytest.raises(ConfigError) as error:
        merge_kwargs({"in_chans": value}, in_chans=4)
    assert str(error.value) == f"in_chans=4 and timm_kwargs.in_chans={value}: give one of them"


@pytest.mark.parametrize("given", [{"in_chans": None}, {"in_chans": 0}, {"in_chans": False}])
def test_value_of_the_user_is_kept_as_it_is(given: dict[str, Any]) -> None:
    assert dict(merge_kwargs(given, in_chans=None)) == given


@pytest.mark.parametrize("config", [dict, OmegaConf.create], ids=["plain", "OmegaConf"])
def test_a_probe_can_be_remembered_by_them(config: Any) -> None:
    kwargs = config({"depths": [1, [2, 3]], "overlay": {"input_size": [3, 96, 64]}, "act_layer": "relu"})
    merged = merge_kwargs(kwargs)
    assert merged == merge_kwargs(config(kwargs))
    assert hash(merged) == hash(merge_kwargs(config(kwargs)))
    assert dict(merged) == {
        "depths": (1, (2, 3)),
        "overlay": {"input_size": (3, 96, 64)},
        "act_layer": "relu",
    }
    assert isinstance(dict(merged)["overlay"], dict)  # as timm wants it


@pytest.mark.parametrize("depths", [[1, 1, 2, 1], (1, 1, 2, 1), OmegaConf.create([1, 1, 2, 1])])
def test_lists_of_a_config_are_taken(depths: Any) -> None:
    with torch.device("meta"):
        backbone = TimmBackbone("test_convnext", timm_kwargs={"depths": depths})
    assert backbone.spec.kwargs == (("depths", (1, 1, 2, 1)),)
    assert len(backbone.model.stages[2].blocks) == 2


@pytest.mark.parametrize("kind", [dict, OmegaConf.create])
def test_mappings_of_a_config_are_taken(kind: Any) -> None:
    with torch.device("meta"):
        backbone = TimmBackbone(
            "test_resnet", timm_kwargs=kind({"pretrained_cfg_overlay": {"input_size": [3, 96, 64]}})
        )
    assert backbone.spec.native_size == (96, 64)


# Sizes


@pytest.mark.parametrize(
    ("given", "parsed"),
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
def test_sizes(given: Any, parsed: Any) -> None:
    size = parse_size(given)
    assert size == parsed
    assert type(size) is type(parsed)


@pytest.mark.parametrize("wrong", [0, -32, 96.0, "96", "64x96", (96,), (), (64, 96, 3), (64, 0), (64, "96")])
def test_sizes_that_are_none(wrong: Any) -> None:
    with pytest.raises(ConfigError) as error:
        parse_size(wrong)
    text = str(error.value)
    assert text.startswith(f"fixed_input_size={wrong}: ")
    assert "(height, width)" in text
    assert "\n" not in text
