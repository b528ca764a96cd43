"""Pixel statistics that a timm model was trained with, in detectron2's units."""

from __future__ import annotations

from collections.abc import Sequence

from .features import pretrained_cfg

__all__ = ["pixel_mean", "pixel_std"]


def pixel_mean(model_name: str) -> list[float]:
    """Mean of the RGB channels, 0 to 255."""
    return _times_255(pretrained_cfg(model_name)["mean"])


def pixel_std(model_name: str) -> list[float]:
    """Standard deviation of the RGB channels, 0 to 255."""
    return _times_255(pretrained_cfg(model_name)["std"])


def _times_255(values: Sequence[float]) -> list[float]:
    return [round(255 * value, 6) for value in values]
