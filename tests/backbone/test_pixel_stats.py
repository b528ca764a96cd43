"""Pixel statistics follow from the name of the model."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import timm
import torch
import torch.nn.functional as F
from timm.models import adapt_input_conv

from d2timm import ConfigError
from d2timm.backbone.pixel_stats import image_format, pixel_mean, pixel_std

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
    """The weights of different tags of one architecture need different statistics."""
    name = "vit_base_patch16_clip_224"
    assert pixel_mean(f"{name}.openai") == pytest.approx([122.771, 116.746, 104.094], abs=1e-3)
    assert pixel_std(f"{name}.openai") == pytest.approx([68.501, 66.632, 70.323], abs=1e-3)
    other = timm.get_pretrained_cfg("tf_efficientnet_b0.ns_jft_in1k")
    advprop = timm.get_pretrained_cfg("tf_efficientnet_b0.ap_in1k")
    assert other.mean != advprop.mean
    assert pixel_mean("tf_efficientnet_b0.ns_jft_in1k") == pytest.approx([255 * x for x in other.mean])
    assert pixel_mean("tf_efficientnet_b0.ap_in1k") == pytest.approx([255 * x for x in advprop.mean])


def test_values_are_floats() -> None:
    values = pixel_mean("resnet18d") + pixel_std("resnet18d")
    assert [type(value) for value in values] == [float] * 6


@pytest.mark.parametrize(
    ("in_chans", "mean", "std"),
    [
        (1, [114.495], [57.63]),  # the mean of the RGB values
        (2, IMAGENET[0][:2], IMAGENET[1][:2]),
        (3, *IMAGENET),
        (4, [*IMAGENET[0], IMAGENET[0][0]], [*IMAGENET[1], IMAGENET[1][0]]),
        (7, [*IMAGENET[0] * 2, IMAGENET[0][0]], [*IMAGENET[1] * 2, IMAGENET[1][0]]),
    ],
)
def test_statistics_of_other_channels(in_chans: int, mean: list[float], std: list[float]) -> None:
    assert pixel_mean("resnet18d", in_chans) == pytest.approx(mean, abs=1e-6)
    assert pixel_std("resnet18d", in_chans) == pytest.approx(std, abs=1e-6)


def test_statistics_fit_the_weights_of_the_first_layer() -> None:
    """A grey image yields the same output with weights that timm adapts to one channel."""
    weight = torch.randn(8, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    grey = 255 * torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(1))
    maps = []
    for channels in (3, 1):
        mean, std = (torch.tensor(f("vit_tiny_patch16_224", channels)) for f in (pixel_mean, pixel_std))
        image = (grey - mean[:, None, None]) / std[:, None, None]
        maps.append(F.conv2d(image, adapt_input_conv(channels, weight)))
    torch.testing.assert_close(maps[0], maps[1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("in_chans", "mode"), [(1, "L"), (3, "RGB")])
def test_image_format_has_the_channels_of_the_model(in_chans: int, mode: str) -> None:
    assert image_format(in_chans) == mode


@pytest.mark.parametrize("in_chans", [2, 4, 5])
def test_ambiguous_channels_are_an_error(in_chans: int) -> None:
    with pytest.raises(ConfigError) as error:
        image_format(in_chans)
    assert f"in_chans={in_chans}" in str(error.value)
    assert "model.input_format=" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("function", [pixel_mean, pixel_std])
def test_unknown_model_suggests_similar_names(function: Callable[[str], list[float]]) -> None:
    with pytest.raises(ConfigError, match=r"resnet18dd.*resnet18d"):
        function("resnet18dd")
