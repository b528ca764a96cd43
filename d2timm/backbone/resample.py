"""Resample feature maps to the stride grid of the image."""

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
    """Return the stride nearest to ``native`` from which doubling or halving leads to ``target``.

    Args:
        native: stride of the feature in pixels, > 0.
        target: stride of the output in pixels, >= 1.
    """
    halvings = round(math.log2(target / native))
    while halvings > 0 and target % 2**halvings:
        halvings -= 1
    return target >> halvings if halvings > 0 else target << -halvings


class Resample(nn.Module):
    """One level: resample a feature map of a model to the grid of ``stride`` pixels per cell.

    First the map is interpolated to the ``base`` stride, a power of two times ``stride``, unless its cells
    already have that size. Then learned transposed convolutions double it, as in the detectors of XCiT
    (https://arxiv.org/abs/2106.09681) and in the simple feature pyramid of ViTDet
    (https://arxiv.org/abs/2203.16527), or max-pooling halves it. The transposed convolutions start as
    nearest-neighbour up-sampling, which preserves pretrained features. By default their input is normalised,
    because the outputs of the blocks of a plain transformer may be large and differ in scale. By default, a
    level at the stride of its feature is the unchanged feature.

    Args:
        channels: number of channels of input and output.
        base: image pixels per cell before doubling or halving.
        stride: image pixels per cell of the output.
        level_norm: maps that are normalised first: ``resampled`` (doubled or halved), ``all`` or ``none``.
        doubling_norm: norm between two doublings: ``LN`` as in ViTDet, ``BN`` or ``SyncBN`` as in XCiT.
        epsilon: epsilon of the layer norms, > 0.
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
        """Resample a feature map.

        Args:
            x: (N, C, h, w); the first cell begins at the top left corner of the image.
            cell: (height, width) of a cell of ``x`` in image pixels.
            size: (H, W) of the image in pixels.

        Returns:
            (N, C, ceil(H / stride), ceil(W / stride)).
        """
        rows, columns = (ceil_div(side, self.base) for side in size)
        if cell != (self.base, self.base):
            # F.interpolate takes either a size or scales; with both, the cells keep their places in the
            # image even if they do not divide it
            scales = [side / self.base for side in cell]
            # torch ignores the scale of a side whose number of cells stays the same, so change the number
            more_rows, more_columns = int(x.shape[-2] == rows), int(x.shape[-1] == columns)
            x = F.pad(x, (0, more_columns, 0, more_rows), mode="replicate")
            x = torch.ops.aten.upsample_bilinear2d(x, [rows, columns], False, *scales)
        x = self.scale(x[..., :rows, :columns])
        return x[..., : ceil_div(size[0], self.stride), : ceil_div(size[1], self.stride)]


def restore(x: Tensor, lost: int) -> Tensor:
    """Replace cells that unpadded convolutions removed by repeating the border.

    Args:
        x: (N, C, h, w).
        lost: number of removed cells per side, >= 0.

    Returns:
        (N, C, h + lost, w + lost).
    """
    if not lost:
        return x
    before, after = lost // 2, lost - lost // 2
    return F.pad(x, (before, after, before, after), mode="replicate")


def check_norms(level_norm: str, doubling_norm: str) -> None:
    """Check the norms of the levels.

    Args:
        level_norm: one of ``LEVEL_NORMS``.
        doubling_norm: one of ``DOUBLING_NORMS``.

    Raises:
        ConfigError: a norm is unknown.
    """
    if level_norm not in LEVEL_NORMS:
        raise ConfigError(f"level_norm={level_norm!r}: must be one of {', '.join(LEVEL_NORMS)}")
    if doubling_norm not in DOUBLING_NORMS:
        raise ConfigError(f"doubling_norm={doubling_norm!r}: must be one of {', '.join(DOUBLING_NORMS)}")


def norm_epsilon(model: nn.Module) -> float:
    """Return the epsilon of the layer norms of a model; 1e-6, timm's default, if it has none."""
    return next((float(layer.eps) for layer in model.modules() if isinstance(layer, nn.LayerNorm)), 1e-6)


def _between(kind: str, channels: int, epsilon: float) -> nn.Module:
    """Create the norm between two doublings."""
    norm: nn.Module = LayerNorm2d(channels, eps=epsilon) if kind == "LN" else get_norm(kind, channels)
    return norm


def _doubling(channels: int) -> nn.ConvTranspose2d:
    """Create a transposed convolution that doubles a map and starts as nearest-neighbour up-sampling."""
    layer = nn.ConvTranspose2d(channels, channels, kernel_size=2, stride=2)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.zero_()
        layer.weight += torch.eye(channels)[:, :, None, None]
    return layer
