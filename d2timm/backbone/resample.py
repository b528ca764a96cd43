"""Bring feature maps onto the stride grid of the image."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from detectron2.layers import get_norm
from timm.layers import LayerNorm2d
from torch import Tensor, nn

from ..errors import ConfigError
from ..utils.sizes import Size, ceil_div

__all__ = [
    "DOUBLING_NORMS",
    "LEVEL_NORMS",
    "Resample",
    "base_stride",
    "check_norms",
    "norm_epsilon",
    "restore",
]

LEVEL_NORMS = ("resampled", "all", "none")
DOUBLING_NORMS = ("LN", "BN", "SyncBN")


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
    up-sampling, so that what pretrained weights give arrives unharmed, and by default they are given
    normalised maps: what comes out of a block of a plain transformer may be large and differs from block to
    block. A level at the model's own stride is by default the model's feature as it is.

    Args:
        channels: of the map, kept.
        base: image pixels a cell before doubling or halving.
        stride: image pixels a cell of the output.
        level_norm: which maps are normalised first: ``resampled`` (doubled or halved), ``all``, ``none``.
        doubling_norm: norm between two doublings: ``LN`` as in ViTDet, ``BN`` or ``SyncBN`` as in XCiT.
        epsilon: of layer norms.
    """

    def __init__(
        self,
        channels: int,
        base: int,
        stride: int,
        *,
        level_norm: str = "resampled",
        doubling_norm: str = "LN",
        epsilon: float = 1e-6,
    ) -> None:
        super().__init__()
        self.base = base
        self.stride = stride
        steps = round(math.log2(base / stride))
        layers: list[nn.Module] = []
        if level_norm == "all" or (level_norm == "resampled" and steps):
            layers.append(LayerNorm2d(channels, eps=epsilon))
        for step in range(steps):
            if step:
                layers += [_between(doubling_norm, channels, epsilon), nn.GELU()]
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
        rows, columns = (ceil_div(side, self.base) for side in size)
        if cell != (self.base, self.base):
            # With both a size and scales, cells that do not divide the image stay where they are.
            scales = [side / self.base for side in cell]
            # torch copies a side whose number of cells stays the same, whatever the scale
            more_rows, more_columns = int(x.shape[-2] == rows), int(x.shape[-1] == columns)
            x = F.pad(x, (0, more_columns, 0, more_rows), mode="replicate")
            x = torch.ops.aten.upsample_bilinear2d(x, [rows, columns], False, *scales)
        x = self.scale(x[..., :rows, :columns])
        return x[..., : ceil_div(size[0], self.stride), : ceil_div(size[1], self.stride)]


def restore(x: Tensor, lost: int) -> Tensor:
    """Repeat the border in place of ``lost`` cells a side that unpadded convolutions took off."""
    if not lost:
        return x
    before, after = lost // 2, lost - lost // 2
    return F.pad(x, (before, after, before, after), mode="replicate")


def check_norms(level_norm: str, doubling_norm: str) -> None:
    """Raise ConfigError if a norm of the levels is none that ``Resample`` knows."""
    if level_norm not in LEVEL_NORMS:
        raise ConfigError(f"level_norm={level_norm!r}: one of {', '.join(LEVEL_NORMS)}")
    if doubling_norm not in DOUBLING_NORMS:
        raise ConfigError(f"doubling_norm={doubling_norm!r}: one of {', '.join(DOUBLING_NORMS)}")


def norm_epsilon(model: nn.Module) -> float:
    """Epsilon of a model's own layer norms; where it has none, timm's of 1e-6."""
    return next((float(layer.eps) for layer in model.modules() if isinstance(layer, nn.LayerNorm)), 1e-6)


def _between(kind: str, channels: int, epsilon: float) -> nn.Module:
    """The norm between two doublings."""
    norm: nn.Module = LayerNorm2d(channels, eps=epsilon) if kind == "LN" else get_norm(kind, channels)
    return norm


def _doubling(channels: int) -> nn.ConvTranspose2d:
    """A learned doubling that begins as nearest-neighbour up-sampling."""
    layer = nn.ConvTranspose2d(channels, channels, kernel_size=2, stride=2)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.zero_()
        layer.weight += torch.eye(channels)[:, :, None, None]
    return layer
