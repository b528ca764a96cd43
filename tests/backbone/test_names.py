"""Names of models are checked once, and an unknown name is answered with similar ones."""

from __future__ import annotations

import random

import pytest
import timm

from d2timm import ConfigError
from d2timm.backbone.names import check_name


@pytest.mark.parametrize(
    "name",
    [
        "resnet50",
        "resnet50.a1_in1k",
        "xcit_small_12_p8_224",
        "vit_base_patch16_clip_224.openai",
        "hf-hub:timm/not_looked_up_here",
        "local-dir:/not/looked/up/here",
    ],
)
def test_names_that_timm_accepts(name: str) -> None:
    check_name(name)


def test_every_timm_name_is_accepted() -> None:
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
def test_unknown_model_suggests_similar_names(name: str, hints: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        check_name(name)
    message = str(error.value)
    assert repr(name) in message
    assert "did you mean" in message
    assert all(hint in message for hint in hints)
    assert "\n" not in message


@pytest.mark.parametrize("name", ["", "qqqqqqqqqqqq"])
def test_unknown_model_without_similar_names(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name!r}") as error:
        check_name(name)
    assert "did you mean" not in str(error.value)


def test_unknown_tag_lists_the_tags_of_the_model() -> None:
    with pytest.raises(ConfigError) as error:
        check_name("resnet50.a1_in2k")
    message = str(error.value)
    assert "a1_in2k" in message
    for tag in ("a1_in1k", "tv_in1k"):
        assert tag in message
    assert "\n" not in message


def test_tag_of_a_model_without_weights() -> None:
    bare = next(name for name in timm.list_models() if not timm.is_model_pretrained(name))
    with pytest.raises(ConfigError, match=rf"{bare} .*'some_tag'"):
        check_name(f"{bare}.some_tag")


@pytest.mark.parametrize("name", ["ftp:resnet50", "hub:timm/resnet50"])
def test_unknown_source_lists_the_known_ones(name: str) -> None:
    with pytest.raises(ConfigError, match="hf-hub"):
        check_name(name)
