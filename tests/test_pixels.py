"""Pixel statistics follow the name of the model."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import timm

from d2timm import ConfigError
from d2timm.pixels import pixel_mean, pixel_std

IMAGENET = ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375])
HALVES = ([127.5] * 3, [127.5] * 3)


@pytest.mark.parametrize(
    ("model_name", "expected"),
    [
        ("resnet18d", IMAGENET),
        ("xcit_small_12_p8_224", IMAGENET),
        ("vit_tiny_patch16_224", HALVES),
        ("tf_efficientnet_lite0", HALVES),
        ("deit_tiny_patch16_224", IMAGENET),  # a plain ViT with other statistics
    ],
)
def test_statistics_are_the_models_own(model_name: str, expected: tuple[list[float], list[float]]) -> None:
    assert (pixel_mean(model_name), pixel_std(model_name)) == expected


def test_statistics_follow_the_tag() -> None:
    """The weights decide, and they differ between tags of one architecture."""
    name = "vit_base_patch16_clip_224"
    assert pixel_mean(f"{name}.openai") == pytest.approx([122.771, 116.746, 104.094], abs=1e-3)
    assert pixel_std(f"{name}.openai") == pytest.approx([68.501, 66.632, 70.323], abs=1e-3)
    other = timm.get_pretrained_cfg("tf_efficientnet_b0.ns_jft_in1k")
    advprop = timm.get_pretrained_cfg("tf_efficientnet_b0.ap_in1k")
    assert other.mean != advprop.mean
    assert pixel_mean("tf_efficientnet_b0.ns_jft_in1k") == pytest.approx([255 * x for x in other.mean])
    assert pixel_mean("tf_efficientnet_b0.ap_in1k") == pytest.approx([255 * x for x in advprop.mean])


def test_values_are_numbers_that_a_config_holds() -> None:
    values = pixel_mean("resnet18d") + pixel_std("resnet18d")
    assert [type(value) for value in values] == [float] * 6


@pytest.mark.parametrize("function", [pixel_mean, pixel_std])
def test_unknown_model_is_one_error(function: Callable[[str], list[float]]) -> None:
    with pytest.raises(ConfigError, match=r"resnet18dd.*resnet18d"):
        function("resnet18dd")
