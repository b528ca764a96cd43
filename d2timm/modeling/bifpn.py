"""BiFPN, the neck of EfficientDet."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.layers import DepthwiseSeparableConv2d
from detectron2.modeling import Backbone
from torch import Tensor, nn

from ..errors import ConfigError
from ..utils.targets import config_target
from .levels import level_names, level_strides
from .necks import Neck, check_top_block, lateral
from .traits import Traits

__all__ = ["BiFPN"]


@config_target
class BiFPN(Neck):
    """Bidirectional feature pyramid (EfficientDet, Tan et al., CVPR 2020, https://arxiv.org/abs/1911.09070).

    1x1 convolutions project the backbone outputs to ``out_channels``, ``top_block`` adds coarser levels, and
    all levels are then fused ``num_layers`` times, top-down and bottom-up.

    Args:
        bottom_up: the backbone.
        in_features: names of backbone outputs, fine to coarse, each of double the stride of the previous one.
        out_channels: channels of all levels.
        norm: norm of the convolutions, as for detectron2's ``get_norm``; "" for a bias instead. The paper has
            batch norm and batches of 128 images; group norm also works with the few images per GPU that
            detectors are usually trained with.
        top_block: adds ``num_levels`` levels, which are fused as well; None for no more levels.
        num_layers: number of fusions, >= 1; 3 to 8 in the paper.

    Raises:
        ConfigError: there are fewer than two levels, ``num_layers`` < 1, or the top block starts from a
            backbone output.
    """

    traits = Traits(fuses_upwards=True)

    def __init__(
        self,
        bottom_up: Backbone,
        in_features: Sequence[str],
        out_channels: int,
        norm: str = "GN",
        top_block: Any = None,
        num_layers: int = 3,
    ) -> None:
        shapes = [bottom_up.output_shape()[name] for name in in_features]
        own = [shape.stride for shape in shapes]
        strides = level_strides(own, top_block)
        if len(strides) < 2:
            raise ConfigError(
                f"model.backbone.in_features={list(in_features)}: BiFPN fuses at least two levels"
            )
        if num_layers < 1:
            raise ConfigError(f"model.backbone.num_layers={num_layers}: BiFPN needs at least one layer")
        check_top_block(top_block, bottom_up, level_names(own)[-1], out_channels)

        # images are padded to the coarsest stride, so that each grid is exactly half the finer one
        levels = dict(zip(level_names(own, top_block), strides, strict=True))
        super().__init__(bottom_up, levels, out_channels)
        self.in_features = tuple(in_features)
        self.laterals = nn.ModuleList(lateral(shape.channels, out_channels, norm) for shape in shapes)
        self.top_block = top_block
        self.layers = nn.ModuleList(_Layer(len(strides), out_channels, norm) for _ in range(num_layers))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Compute the levels of a batch.

        Args:
            x: (N, C, H, W) images, H and W multiples of ``size_divisibility``.

        Returns:
            Name -> (N, out_channels, H / stride, W / stride), fine to coarse.
        """
        features = self.bottom_up(x)
        levels = [conv(features[name]) for name, conv in zip(self.in_features, self.laterals, strict=True)]
        if self.top_block is not None:
            levels.extend(self.top_block(levels[-1]))
        for layer in self.layers:
            levels = layer(levels)
        return dict(zip(self._out_features, levels, strict=True))


class _Layer(nn.Module):
    """One fusion of all levels.

    With inputs P, top-down path T and outputs O, as in the paper:

    T6 = fuse(P6, up(P7)), T5 = fuse(P5, up(T6)), ..., O3 = fuse(P3, up(T4)),
    O4 = fuse(P4, T4, down(O3)), ..., O7 = fuse(P7, down(O6))
    """

    def __init__(self, num_levels: int, channels: int, norm: str) -> None:
        super().__init__()
        inner = [3] * (num_levels - 2)
        self.downward = nn.ModuleList(_Fusion(2, channels, norm) for _ in range(num_levels - 1))
        self.upward = nn.ModuleList(_Fusion(inputs, channels, norm) for inputs in [*inner, 2])

    def forward(self, levels: list[Tensor]) -> list[Tensor]:
        """Fuse maps of shapes (N, channels, H_i, W_i), fine to coarse, into maps of the same shapes."""
        above = levels[-1]
        path = []
        for level, fuse in zip(levels[-2::-1], reversed(self.downward), strict=True):
            above = fuse(level, F.interpolate(above, size=level.shape[-2:], mode="nearest"))
            path.append(above)
        outputs = [path.pop()]
        for level, fuse in zip(levels[1:], self.upward, strict=True):
            inputs = [level, path.pop()] if path else [level]
            outputs.append(fuse(*inputs, F.max_pool2d(outputs[-1], kernel_size=3, stride=2, padding=1)))
        return outputs


class _Fusion(nn.Module):
    """The paper's fast normalized fusion: a weighted mean, SiLU and a separable convolution.

    The weights are learned and kept >= 0 by a ReLU.
    """

    def __init__(self, inputs: int, channels: int, norm: str) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.ones(inputs))
        self.conv = DepthwiseSeparableConv2d(channels, channels, norm2=norm)

    def forward(self, *maps: Tensor) -> Tensor:
        """Fuse maps of the same shape."""
        weights = self.weights.relu()
        weights = weights / (weights.sum() + 1e-4)
        mean = functools.reduce(torch.add, (w * x for w, x in zip(weights, maps, strict=True)))
        fused: Tensor = self.conv(F.silu(mean))
        return fused
