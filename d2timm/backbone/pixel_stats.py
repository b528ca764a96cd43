"""The pixel statistics with which a timm model was trained, in detectron2's units."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import ConfigError
from ..utils.targets import config_target
from .probing import pretrained_cfg

__all__ = ["image_format", "pixel_mean", "pixel_std"]


@config_target
def pixel_mean(model_name: str, in_chans: int = 3) -> list[float]:
    """Return the mean of each image channel, 0 to 255, in RGB order.

    Args:
        model_name: any name that ``timm.create_model`` accepts.
        in_chans: number of image channels, >= 1. A single channel has the mean of the RGB values; more than
            three channels repeat them, as timm repeats the weights of the first layer.
    """
    return _per_channel(pretrained_cfg(model_name)["mean"], in_chans)


@config_target
def pixel_std(model_name: str, in_chans: int = 3) -> list[float]:
    """Return the standard deviation of each image channel, 0 to 255, in RGB order.

    Args:
        model_name: any name that ``timm.create_model`` accepts.
        in_chans: number of image channels, >= 1; see ``pixel_mean``.
    """
    return _per_channel(pretrained_cfg(model_name)["std"], in_chans)


@config_target
def image_format(in_chans: int) -> str:
    """Return the format in which detectron2 reads images.

    Args:
        in_chans: number of image channels: 1 or 3.

    Raises:
        ConfigError: the number of channels does not determine the format.
    """
    formats = {1: "L", 3: "RGB"}
    if in_chans not in formats:
        raise ConfigError(
            f"in_chans={in_chans}: the format of images with {in_chans} channels is ambiguous; set "
            "model.input_format=RGBA or another mode of Pillow, or use a mapper of your own"
        )
    return formats[in_chans]


def _per_channel(values: Sequence[float], channels: int) -> list[float]:
    if channels == 1:
        values = [sum(values) / len(values)]
    return [round(255 * values[i % len(values)], 6) for i in range(channels)]
