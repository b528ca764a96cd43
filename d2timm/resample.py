"""Bring feature maps onto the stride grid of the image."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from timm.layers import LayerNorm2d
from torch import Tensor, nn

from .features import Size

__all__ = ["Resample", "base_stride", "restore"]


def base_stride(native: float, target: int) -> int:
    """The stride nearest to ``native`` that doubling or halving turns into ``target``."""
    halvings = round(math.log2(target / native))
    while halvings > 0 and target % 2**halvings:
        halvings -= 1
    return target >> halvings if halvings > 0 else target << -halvings


class Resample(nn.Module):
    """One level: from a model's feature map to the grid of ``stride`` pixels a cell.

    First the map is interpolated to the ``base`` stride, a power of two times ``stride``, if its cells
    are not of that size. From there learned transposed convolutions double it, as the detection heads of
    XCiT (https://arxiv.org/abs/2106.09681) and the simple feature pyramid of ViTDet
    (https://arxiv.org/abs/2203.16527) do, or max-pooling halves it. They start as nearest-neighbour
    up-sampling, so that what pretrained weights give arrives unharmed, and they are given normalised maps:
    what comes out of a block of a plain transformer may be large and differs from block to block. A level
    at the model's own stride is the model's feature as it is.

    Args:
        channels: of the map, kept.
        base: image pixels a cell before doubling or halving.
        stride: image pixels a cell of the output.
    """

    def __init__(self, channels: int, base: int, stride: int) -> None:
        super().__init__()
        self.base = base
        self.stride = stride
        steps = round(math.log2(base / stride))
        layers: list[nn.Module] = [LayerNorm2d(channels)] if steps else []
        for step in range(steps):
            if step:
                layers += [LayerNorm2d(channels), nn.GELU()]
            layers.append(_doubling(channels))
        if steps < 0:
            layers.append(nn.MaxPool2d(2**-steps, ceil_mode=True))
        self.scale = nn.Sequential(*layers)

    def forward(self, x: Tensor, cell: tuple[float, float], size: Size) -> Tensor:
        """Resample.

        Args:
            x: (N, C, h, w); its first cell begins at the image's corner.
            cell: (height, width) of a cell of ``x`` in image pixels.
            size: (H, W) of the image in pixels.

        Returns:
            (N, C, ceil(H / stride), ceil(W / stride)).
        """
        rows, columns = (math.ceil(side / self.base) for side in size)
        if cell != (self.base, self.base):
            # With both a size and scales, cells that do not divide the image stay where they are.
            scales = [side / self.base for side in cell]
            # torch copies a side whose number of cells stays the same, whatever the scale
            more_rows, more_columns = int(x.shape[-2] == rows), int(x.shape[-1] == columns)
            x = F.pad(x, (0, more_columns, 0, more_rows), mode="replicate")
            x = torch.ops.aten.upsample_bilinear2d(x, [rows, columns], False, *scales)
        x = self.scale(x[..., :rows, :columns])
        return x[..., : math.ceil(size[0] / self.stride), : math.ceil(size[1] / self.stride)]


def restore(x: Tensor, lost: int) -> Tensor:
    """Repeat the border in place of ``lost`` cells a side that unpadded convolutions took off."""
    if not lost:
        return x
    before, after = lost // 2, lost - lost // 2
    return F.pad(x, (before, after, before, after), mode="replicate")


def _doubling(channels: int) -> nn.ConvTranspose2d:
    """A learned doubling that begins as nearest-neighbour up-sampling."""
    layer = nn.ConvTranspose2d(channels, channels, kernel_size=2, stride=2)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.zero_()
        layer.weight += torch.eye(channels)[:, :, None, None]
    return layer
