"""Pixel statistics that a timm model was trained with, in detectron2's units."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import ConfigError
from .probing import pretrained_cfg

__all__ = ["image_format", "pixel_mean", "pixel_std"]


def pixel_mean(model_name: str, in_chans: int = 3) -> list[float]:
    """Mean of each image channel, 0 to 255, in the order RGB.

    Args:
        model_name: any name that ``timm.create_model`` takes.
        in_chans: channels of the images. One has the mean of the three; more repeat them, as the weights
            of the first layer are repeated.
    """
    return _of_channels(pretrained_cfg(model_name)["mean"], in_chans)


def pixel_std(model_name: str, in_chans: int = 3) -> list[float]:
    """Standard deviation of each image channel, 0 to 255; arguments as those of ``pixel_mean``."""
    return _of_channels(pretrained_cfg(model_name)["std"], in_chans)


def image_format(in_chans: int) -> str:
    """How detectron2 reads images of so many channels.

    Raises:
        ConfigError: there is more than one way.
    """
    formats = {1: "L", 3: "RGB"}
    if in_chans not in formats:
        raise ConfigError(
            f"in_chans={in_chans}: how images of {in_chans} channels are read is yours to say, by "
            "model.input_format=RGBA or another mode of Pillow, or by a mapper of your own"
        )
    return formats[in_chans]


def _of_channels(values: Sequence[float], channels: int) -> list[float]:
    if channels == 1:
        values = [sum(values) / len(values)]
    return [round(255 * values[i % len(values)], 6) for i in range(channels)]
