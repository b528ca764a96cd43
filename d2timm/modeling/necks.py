"""Necks that detectron2 does not have, and the shapes of a neck's levels for its heads."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from detectron2.layers import Conv2d, ShapeSpec, get_norm
from detectron2.modeling import Backbone
from detectron2.modeling.backbone.fpn import FPN
from fvcore.nn import weight_init
from torch import Tensor, nn

from ..errors import ConfigError
from ..utils.targets import config_target
from .levels import level_names, level_strides
from .traits import Traits

__all__ = [
    "PAFPN",
    "Neck",
    "SingleLevel",
    "check_top_block",
    "lateral",
    "level_shapes",
    "named_shapes",
    "padded_to",
]


@config_target
class PAFPN(FPN):
    """Path aggregation network (Liu et al., CVPR 2018, https://arxiv.org/abs/1803.01534).

    An FPN followed by a bottom-up path from its finest level P2, which shortens the path from fine detail to
    the coarse levels. A ReLU follows each convolution of the path, as in the paper:

        N2 = P2
        N3 = conv3x3(P3 + conv3x3/2(N2)), N4 = conv3x3(P4 + conv3x3/2(N3)), ...

    Args:
        bottom_up: the backbone.
        in_features: names of backbone outputs, fine to coarse, each of double the stride of the previous one.
        out_channels: channels of all levels.
        norm: norm of the convolutions, as for detectron2's ``get_norm``; "" for a bias instead.
        top_block: adds ``num_levels`` levels to the last level of the path; None for no more levels.
        fuse_type: ``sum`` or ``avg``, how both paths combine two maps.

    Raises:
        ConfigError: the top block starts from a backbone output.
    """

    traits = Traits(fuses_upwards=True)

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
        check_top_block(top_block, bottom_up, self._out_features[-1], out_channels)

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
        # not FPN's attribute top_block, which FPN would apply before the bottom-up path
        self.last_levels = top_block
        strides = [shape.stride for shape in super().output_shape().values()]
        self._shapes = named_shapes(out_channels, strides, top_block)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Compute the levels of a batch.

        Args:
            x: (N, C, H, W) images, H and W multiples of ``size_divisibility``.

        Returns:
            Name -> (N, out_channels, H / stride, W / stride), fine to coarse; sizes of levels from the top
            block are rounded up.
        """
        levels = super().forward(x)
        finest, *coarser = levels
        outputs = [levels[finest]]
        for name in coarser:
            total = levels[name] + self.downs[name](outputs[-1])
            outputs.append(self.fuses[name](total / 2 if self._fuse_type == "avg" else total))
        if self.last_levels is not None:
            outputs.extend(self.last_levels(outputs[-1]))
        return dict(zip(self._shapes, outputs, strict=True))

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Return name -> channels and stride of each level."""
        return dict(self._shapes)


class Neck(Backbone):
    """Base class of necks that are not FPNs: images are padded as the levels and the backbone require.

    Args:
        bottom_up: the backbone.
        levels: name -> stride of each level, fine to coarse, in pixels.
        out_channels: channels of all levels.
    """

    traits = Traits()

    def __init__(self, bottom_up: Backbone, levels: Mapping[str, int], out_channels: int) -> None:
        super().__init__()
        self.bottom_up = bottom_up
        self._out_features = list(levels)
        self._out_feature_strides = dict(levels)
        self._out_feature_channels = dict.fromkeys(levels, out_channels)

    @property
    def size_divisibility(self) -> int:
        """Images are padded to multiples of it: of the coarsest stride, and of what the backbone requires."""
        return padded_to(self.bottom_up, *self._out_feature_strides.values())

    @property
    def padding_constraints(self) -> dict[str, int]:
        """``size_divisibility`` and the other constraints of the backbone."""
        return {**self.bottom_up.padding_constraints, "size_divisibility": self.size_divisibility}


@config_target
class SingleLevel(Neck):
    """One level instead of a pyramid: a 1x1 convolution projects one backbone output to the heads' width.

    Detectors before FPN (Faster R-CNN's C4, https://arxiv.org/abs/1506.01497) and detectors on plain vision
    transformers work on one level. With the convolution, the heads do not depend on the backbone.

    Args:
        bottom_up: the backbone.
        in_features: name of the backbone output, a list of one.
        out_channels: channels of the level.
        norm: norm of the convolution, as for detectron2's ``get_norm``; "" for a bias instead.

    Raises:
        ConfigError: ``in_features`` does not have exactly one name.
    """

    def __init__(
        self, bottom_up: Backbone, in_features: Sequence[str], out_channels: int, norm: str = ""
    ) -> None:
        if len(in_features) != 1:
            raise ConfigError(f"model.backbone.in_features={list(in_features)}: this neck takes one output")
        shape = bottom_up.output_shape()[in_features[0]]
        super().__init__(bottom_up, dict.fromkeys(level_names([shape.stride]), shape.stride), out_channels)
        self.in_features = tuple(in_features)
        self.lateral = lateral(shape.channels, out_channels, norm)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Compute the level of a batch.

        Args:
            x: (N, C, H, W) images, H and W multiples of ``size_divisibility``.

        Returns:
            Name of the level -> (N, out_channels, H / stride, W / stride).
        """
        features = self.bottom_up(x)[self.in_features[0]]
        return {self._out_features[0]: self.lateral(features)}


def lateral(in_channels: int, out_channels: int, norm: str) -> nn.Module:
    """Build the 1x1 convolution that projects a backbone output to a neck's width, initialized as in FPN."""
    conv: nn.Module = Conv2d(
        in_channels, out_channels, kernel_size=1, bias=norm == "", norm=get_norm(norm, out_channels)
    )
    weight_init.c2_xavier_fill(conv)
    return conv


def check_top_block(top_block: Any, bottom_up: Backbone, last: str, channels: int) -> None:
    """Raise ConfigError if a top block starts from a backbone output instead of the neck's last level.

    Args:
        top_block: the neck's top block, or None.
        bottom_up: the backbone.
        last: name of the neck's last level without those of the top block.
        channels: channels of that level.
    """
    if top_block is not None and top_block.in_feature in bottom_up.output_shape():
        raise ConfigError(
            f"top_block.in_feature={top_block.in_feature}: the top block of this neck starts from the neck's "
            f"last level; use in_feature={last} with in_channels={channels}"
        )


def padded_to(bottom_up: Backbone, *strides: int) -> int:
    """The multiple to which images are padded: all strides divide it, and so does the backbone's own."""
    required = bottom_up.padding_constraints.get("size_divisibility", bottom_up.size_divisibility)
    return math.lcm(*strides, max(required, 1))


@config_target
def level_shapes(channels: int, strides: Sequence[int], top_block: Any = None) -> list[ShapeSpec]:
    """Channels and stride of each level of a neck, fine to coarse; arguments as in ``level_strides``."""
    return [ShapeSpec(channels=channels, stride=stride) for stride in level_strides(strides, top_block)]


@config_target
def named_shapes(channels: int, strides: Sequence[int], top_block: Any = None) -> dict[str, ShapeSpec]:
    """Name -> channels and stride of each level of a neck; arguments as in ``level_strides``."""
    shapes = level_shapes(channels, strides, top_block)
    return dict(zip(level_names(strides, top_block), shapes, strict=True))
