"""ConvNeXt in mmdet (https://github.com/facebookresearch/ConvNeXt, object_detection/).

The names follow object_detection/mmdet/models/backbones/convnext.py.
"""

from __future__ import annotations

import re

from torch import Tensor

from . import mmdet
from .layout import Layout, norms_of_all, renamed
from .target import BODY, LEVELS, Target

__all__ = ["CONVNEXT"]

LAYERS = {"dwconv": "conv_dw", "pwconv1": "mlp.fc1", "pwconv2": "mlp.fc2"}


def _block(match: re.Match[str], target: Target) -> str:
    layer, dot, rest = match[3].partition(".")
    return f"{BODY}stages.{match[1]}.blocks.{match[2]}.{LAYERS.get(layer, layer)}{dot}{rest}"


def _norm(match: re.Match[str], target: Target) -> str | None:
    level = target.level(int(match[1]))
    return level and f"{LEVELS}{level}.scale.0.{match[2]}"


def _as_convolution(name: str, values: Tensor, target: Target) -> tuple[Tensor, str]:
    """Reshape a linear layer where timm's model has a 1x1 convolution."""
    expected = target.state[name].shape
    return (values.reshape(expected) if expected == (*values.shape, 1, 1) else values), ""


CONVNEXT = Layout(
    name="ConvNeXt of mmdet",
    signature=(r"backbone\.downsample_layers\.0\.0\.weight", r"backbone\.stages\.0\.0\.dwconv\.weight"),
    rules=(
        (r"backbone\.downsample_layers\.0\.(.+)", renamed(BODY + r"stem.\1")),
        (r"backbone\.downsample_layers\.(\d+)\.(.+)", renamed(BODY + r"stages.\1.downsample.\2")),
        (r"backbone\.stages\.(\d+)\.(\d+)\.(.+)", _block),
        (r"backbone\.norm(\d+)\.(.+)", _norm),
        *mmdet.HEADS,
    ),
    adapt={r".*\.mlp\.fc[12]\.weight": _as_convolution, **mmdet.ADAPT},
    notes=norms_of_all,
)
