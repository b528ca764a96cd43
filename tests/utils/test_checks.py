"""Names of models are checked once, and a wrong one gives those that resemble it."""

from __future__ import annotations

import random

import pytest
import timm

from d2timm import ConfigError
from d2timm.backbone.names import check_name
from d2timm.utils.checks import suggest


@pytest.mark.parametrize(
    "name",
    [
        "resnet50",
        "resnet50.a1_in1k",
        "xcit_small_12_p8_224",
        "vit_base_patch16_clip_224.openai",
        "hf-hub:timm/not_looked_up_here",
        "local-dir:/nor/here",
    ],
)
def test_names_that_timm_takes(name: str) -> None:
    check_name(name)


def test_every_name_of_timm_is_taken() -> None:
    names = timm.list_models() + random.Random(0).sample(timm.list_pretrained(), 50)
    for name in names:
        check_name(name)


@pytest.mark.parametrize(
    ("name", "hints"),
    [
        ("resnet5O", ["resnet50"]),
        ("xcit_smal_12_p8_224", ["xcit_small_12_p8_224"]),
        ("swin_tiny", ["swin"]),
        ("ResNet50", ["resnet50"]),
        ("resnet50 ", ["resnet50"]),
    ],
)
def test_unknown_model_gives_near_names(name: str, hints: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        check_name(name)
    text = str(error.value)
    assert repr(name) in text
    assert "did you mean" in text
    assert all(hint in text for hint in hints)
    assert "\n" not in text


@pytest.mark.parametrize("name", ["", "qqqqqqqqqqqq"])
def test_name_like_no_other_says_so(name: str) -> None:
    with pytest.raises(ConfigError, match="no known name is like it"):
        check_name(name)


def test_wrong_tag_gives_those_there_are() -> None:
    with pytest.raises(ConfigError) as error:
        check_name("resnet50.a1_in2k")
    text = str(error.value)
    assert "a1_in2k" in text
    for tag in ("a1_in1k", "tv_in1k"):
        assert tag in text
    assert "\n" not in text


def test_tag_of_a_model_without_weights() -> None:
    bare = next(name for name in timm.list_models() if not timm.is_model_pretrained(name))
    with pytest.raises(ConfigError, match="has no weights 'some_tag'"):
        check_name(f"{bare}.some_tag")


@pytest.mark.parametrize("name", ["ftp:resnet50", "hub:timm/resnet50"])
def test_unknown_place_gives_those_there_are(name: str) -> None:
    with pytest.raises(ConfigError, match="hf-hub"):
        check_name(name)


def test_near_puts_the_nearest_first() -> None:
    assert suggest("fpm", ["simple", "fpn", "pafpn"]).startswith("did you mean fpn")
    assert suggest("zzz", ["fpn", "pafpn"]) == "no known name is like it"
    assert suggest("a", []) == "no known name is like it"
