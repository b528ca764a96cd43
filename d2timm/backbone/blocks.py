"""Blocks as they were published, where timm's are others."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from timm.models.resnet import Bottleneck
from timm.models.swin_transformer import SwinTransformerBlock
from torch import Tensor, nn

__all__ = ["PaddedThenShifted", "StrideIn1x1", "pad_before_shift", "stride_in_1x1"]


class PaddedThenShifted(SwinTransformerBlock):
    """A block of Swin that pads a map to whole windows before it shifts it.

    timm shifts first, so that where windows do not divide a map, cells at its two ends attend to each other.
    The published detectors pad first (mmdet/models/backbones/swin_transformer.py of
    https://github.com/SwinTransformer/Swin-Transformer-Object-Detection). The weights are the same.
    """

    def _attn(self, x: Tensor) -> Tensor:
        height, width = x.shape[1:3]
        # without negative numbers, whose remainders ONNX takes otherwise
        rows, columns = (
            (window - side % window) % window
            for side, window in zip(x.shape[1:3], self.window_size, strict=True)
        )
        attended: Tensor = super()._attn(F.pad(x, (0, 0, 0, columns, 0, rows)))  # type: ignore[no-untyped-call]
        return attended[:, :height, :width]


def pad_before_shift(model: nn.Module) -> None:
    """Make blocks of Swin those that pad first, in place."""
    for module in model.modules():
        if type(module) is SwinTransformerBlock:
            module.__class__ = PaddedThenShifted


class StrideIn1x1(Bottleneck):
    """A bottleneck that halves in its first convolution, of 1x1, instead of the one of 3x3.

    As in the first ResNets (https://arxiv.org/abs/1512.03385), and so in detectron2's model zoo, whose R50
    and R101 start from MSRA's weights (``MODEL.RESNETS.STRIDE_IN_1X1``).
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.conv1.stride, self.conv2.stride = self.conv2.stride, self.conv1.stride


def stride_in_1x1(**timm_kwargs: Any) -> dict[str, Any]:
    """Keywords of a ResNet of ``StrideIn1x1``, and others: for ``timm_kwargs._target_`` in a config."""
    return {**timm_kwargs, "block": StrideIn1x1}
