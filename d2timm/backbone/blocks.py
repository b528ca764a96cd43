"""Blocks as in the published models, where timm's blocks differ."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from timm.models.resnet import Bottleneck
from timm.models.swin_transformer import SwinTransformerBlock
from torch import Tensor, nn

from ..utils.targets import config_target

__all__ = ["PaddedThenShifted", "StrideIn1x1", "pad_before_shift", "stride_in_1x1"]


class PaddedThenShifted(SwinTransformerBlock):
    """A Swin block that pads the feature map to a multiple of the window before it shifts the map.

    timm's block shifts first. If the windows do not divide the map, cells at opposite borders then attend to
    each other. The published detectors pad first (mmdet/models/backbones/swin_transformer.py in
    https://github.com/SwinTransformer/Swin-Transformer-Object-Detection). The weights are the same.
    """

    def _attn(self, x: Tensor) -> Tensor:
        height, width = x.shape[1:3]
        # not -side % window: ONNX computes remainders of negative numbers differently
        rows, columns = (
            (window - side % window) % window
            for side, window in zip(x.shape[1:3], self.window_size, strict=True)
        )
        attended: Tensor = super()._attn(F.pad(x, (0, 0, 0, columns, 0, rows)))  # type: ignore[no-untyped-call]
        return attended[:, :height, :width]


def pad_before_shift(model: nn.Module) -> None:
    """Replace, in place, timm's Swin blocks by blocks that pad before they shift."""
    for module in model.modules():
        if type(module) is SwinTransformerBlock:
            module.__class__ = PaddedThenShifted


class StrideIn1x1(Bottleneck):
    """A ResNet bottleneck whose first 1x1 convolution has the stride, instead of the 3x3 convolution.

    The first ResNets (https://arxiv.org/abs/1512.03385) are built like that. So are the R50 and R101 of
    detectron2's model zoo, which start from MSRA's weights (``MODEL.RESNETS.STRIDE_IN_1X1``).
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.conv1.stride, self.conv2.stride = self.conv2.stride, self.conv1.stride


@config_target
def stride_in_1x1(**timm_kwargs: Any) -> dict[str, Any]:
    """Return keyword arguments of a ResNet with ``StrideIn1x1`` blocks.

    A config uses it as ``timm_kwargs._target_``.

    Args:
        timm_kwargs: further keyword arguments of ``timm.create_model``.
    """
    return {**timm_kwargs, "block": StrideIn1x1}
