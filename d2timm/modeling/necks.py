"""Necks that detectron2 does not have, and what its heads ask of a neck."""

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
        # not FPN's own top_block, which would be given a level before the path
        self.last_levels = top_block
        strides = [shape.stride for shape in super().output_shape().values()]
        self._shapes = named_shapes(out_channels, strides, top_block)

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


class Neck(Backbone):
    """What a neck that is not an FPN has of its own: images padded to what its levels and its backbone need.

    Args:
        bottom_up: the backbone.
        levels: name -> stride of each level, fine to coarse.
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
        """What images are padded to multiples of: the coarsest stride, and what the backbone asks for."""
        return padded_to(self.bottom_up, *self._out_feature_strides.values())

    @property
    def padding_constraints(self) -> dict[str, int]:
        """``size_divisibility``, and what else the backbone asks for."""
        return {**self.bottom_up.padding_constraints, "size_divisibility": self.size_divisibility}


class SingleLevel(Neck):
    """No pyramid: one output of the backbone, brought to the heads' width by a 1x1 convolution.

    The detectors before FPN (Faster R-CNN's C4, https://arxiv.org/abs/1506.01497) and of plain vision
    transformers work on one level. The convolution lets heads be the same whatever the backbone.

    Args:
        bottom_up: the backbone.
        in_features: name of its output to use, a list of one.
        out_channels: channels of the level.
        norm: norm of the convolution, as detectron2's ``get_norm`` takes it; "": none, and a bias.

    Raises:
        ConfigError: several outputs.
    """

    def __init__(
        self, bottom_up: Backbone, in_features: Sequence[str], out_channels: int, norm: str = ""
    ) -> None:
        if len(in_features) != 1:
            raise ConfigError(f"model.backbone.in_features={list(in_features)}: one output is needed")
        shape = bottom_up.output_shape()[in_features[0]]
        super().__init__(bottom_up, dict.fromkeys(level_names([shape.stride]), shape.stride), out_channels)
        self.in_features = tuple(in_features)
        self.lateral = lateral(shape.channels, out_channels, norm)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Compute the level of a batch.

        Args:
            x: (N, C, H, W) images, H and W multiples of ``size_divisibility``.

        Returns:
            Its name -> (N, out_channels, H / stride, W / stride).
        """
        features = self.bottom_up(x)[self.in_features[0]]
        return {self._out_features[0]: self.lateral(features)}


def lateral(in_channels: int, out_channels: int, norm: str) -> nn.Module:
    """The 1x1 convolution that brings an output of the backbone to a neck's width, as in FPN."""
    conv: nn.Module = Conv2d(
        in_channels, out_channels, kernel_size=1, bias=norm == "", norm=get_norm(norm, out_channels)
    )
    weight_init.c2_xavier_fill(conv)
    return conv


def check_top_block(top_block: Any, bottom_up: Backbone, last: str, channels: int) -> None:
    """Raise ConfigError if further levels are to be made of the backbone, not of the neck's last level.

    Args:
        top_block: the neck's, or None.
        bottom_up: the backbone.
        last: name of the neck's last level before those of the top block.
        channels: of that level.
    """
    if top_block is not None and top_block.in_feature in bottom_up.output_shape():
        raise ConfigError(
            f"top_block.in_feature={top_block.in_feature}: this neck makes further levels from its own last "
            f"one, in_feature={last} with in_channels={channels}"
        )


def padded_to(bottom_up: Backbone, *strides: int) -> int:
    """Sides of images are multiples of this for grids that divide, and for what the backbone asks."""
    asked = bottom_up.padding_constraints.get("size_divisibility", bottom_up.size_divisibility)
    return math.lcm(*strides, max(asked, 1))


def level_shapes(channels: int, strides: Sequence[int], top_block: Any = None) -> list[ShapeSpec]:
    """Channels and stride of a neck's levels, fine to coarse; arguments as those of ``level_strides``."""
    return [ShapeSpec(channels=channels, stride=stride) for stride in level_strides(strides, top_block)]


def named_shapes(channels: int, strides: Sequence[int], top_block: Any = None) -> dict[str, ShapeSpec]:
    """Name -> channels and stride of a neck's levels; arguments as those of ``level_strides``."""
    shapes = level_shapes(channels, strides, top_block)
    return dict(zip(level_names(strides, top_block), shapes, strict=True))
