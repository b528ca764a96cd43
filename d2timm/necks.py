"""Necks that detectron2 does not have, and what its heads ask of a neck."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from detectron2.layers import Conv2d, ShapeSpec, get_norm
from detectron2.modeling import Backbone
from detectron2.modeling.backbone.fpn import FPN
from fvcore.nn import weight_init
from torch import Tensor, nn

from .errors import ConfigError
from .levels import level_names, level_strides

__all__ = ["PAFPN", "level_shapes"]


class PAFPN(FPN):
    """Path aggregation network (Liu et al., CVPR 2018, https://arxiv.org/abs/1803.01534).

    An FPN, and a path back up from its finest level P, which shortens the way of fine detail to the
    coarse levels; each convolution of the path is followed by a ReLU, as in the paper:

        N2 = P2
        N3 = conv3x3(P3 + conv3x3/2(N2)), N4 = conv3x3(P4 + conv3x3/2(N3)), ...

    Args:
        bottom_up: the backbone.
        in_features: names of its outputs to use, fine to coarse, each of double the stride of the one before.
        out_channels: channels of all levels.
        norm: norm of the convolutions, as detectron2's ``get_norm`` takes it; "": none, and a bias.
        top_block: makes ``num_levels`` more levels from the path's last one; None: no more.
        fuse_type: ``sum`` or ``avg`` of the two maps that meet, on both paths.
    """

    def __init__(
        self,
        bottom_up: Backbone,
        in_features: Sequence[str],
        out_channels: int,
        norm: str = "",
        top_block: Any = None,
        fuse_type: str = "sum",
    ) -> None:
        super().__init__(bottom_up, in_features, out_channels, norm=norm, fuse_type=fuse_type)
        if top_block is not None and top_block.in_feature in bottom_up.output_shape():
            raise ConfigError(
                f"top_block.in_feature={top_block.in_feature}: PAFPN makes further levels from its own last "
                f"one, in_feature={self._out_features[-1]} with in_channels={out_channels}"
            )

        def convolution(stride: int) -> nn.Module:
            conv: nn.Module = Conv2d(
                out_channels,
                out_channels,
                kernel_size=3,
                stride=stride,
                padding=1,
                bias=norm == "",
                norm=get_norm(norm, out_channels),
                activation=nn.ReLU(),
            )
            weight_init.c2_msra_fill(conv)
            return conv

        coarser = self._out_features[1:]
        self.downs = nn.ModuleDict({name: convolution(stride=2) for name in coarser})
        self.fuses = nn.ModuleDict({name: convolution(stride=1) for name in coarser})
        # not FPN's own top_block, which would be given a level before the path
        self.last_levels = top_block
        strides = [shape.stride for shape in super().output_shape().values()]
        shapes = level_shapes(out_channels, strides, top_block)
        self._shapes = dict(zip(level_names(strides, top_block), shapes, strict=True))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Compute the levels of a batch.

        Args:
            x: (N, C, H, W) images, H and W multiples of ``size_divisibility``.

        Returns:
            Name -> (N, out_channels, H / stride, W / stride), fine to coarse; sizes of further levels are
            rounded up.
        """
        levels = super().forward(x)
        finest, *coarser = levels
        outputs = [levels[finest]]
        for name in coarser:
            met = levels[name] + self.downs[name](outputs[-1])
            outputs.append(self.fuses[name](met / 2 if self._fuse_type == "avg" else met))
        if self.last_levels is not None:
            outputs.extend(self.last_levels(outputs[-1]))
        return dict(zip(self._shapes, outputs, strict=True))

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Name -> channels and stride of each level."""
        return dict(self._shapes)


def level_shapes(channels: int, strides: Sequence[int], top_block: Any = None) -> list[ShapeSpec]:
    """Channels and stride of a neck's levels, fine to coarse; arguments as those of ``level_strides``."""
    return [ShapeSpec(channels=channels, stride=stride) for stride in level_strides(strides, top_block)]
