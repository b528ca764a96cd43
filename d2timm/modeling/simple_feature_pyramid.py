"""ViTDet's neck for any backbone."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from detectron2.modeling import Backbone
from detectron2.modeling.backbone import vit
from torch import Tensor

from ..errors import ConfigError
from ..utils.targets import config_target
from .necks import check_top_block, padded_to
from .traits import Traits

__all__ = ["SimpleFeaturePyramid"]

SCALES = (4.0, 2.0, 1.0, 0.5)  # the scale factors that detectron2 implements


@config_target
class SimpleFeaturePyramid(vit.SimpleFeaturePyramid):
    """Simple feature pyramid (ViTDet, Li et al., ECCV 2022, https://arxiv.org/abs/2203.16527).

    All levels are made from one backbone output, such as the last block of a plain vision transformer: finer
    levels by transposed convolutions, coarser levels by max-pooling. This is detectron2's class with the
    arguments of the other necks, and with images padded as its levels require.

    Args:
        bottom_up: the backbone.
        in_features: name of the backbone output, a list of one.
        out_channels: channels of all levels.
        scale_factors: scale factors of the levels, fine to coarse: successive ones of 4, 2, 1 and 1/2.
        norm: norm of the convolutions, as for detectron2's ``get_norm``.
        top_block: adds ``num_levels`` levels to the last one; None for no more levels.
        square_pad: side in pixels of the squares to which images are padded; 0 for the least padding.

    Raises:
        ConfigError: there are several outputs, other scale factors or no norm, or the top block starts from a
            backbone output.
    """

    traits = Traits()

    def __init__(
        self,
        bottom_up: Backbone,
        in_features: Sequence[str],
        out_channels: int,
        scale_factors: Sequence[float] = SCALES,
        norm: str = "LN",
        top_block: Any = None,
        square_pad: int = 0,
    ) -> None:
        if len(in_features) != 1:
            raise ConfigError(f"model.backbone.in_features={list(in_features)}: this neck takes one output")
        halves = all(fine == 2 * coarse for fine, coarse in itertools.pairwise(scale_factors))
        if not scale_factors or not set(scale_factors) <= set(SCALES) or not halves:
            raise ConfigError(
                f"model.backbone.scale_factors={list(scale_factors)}: use successive ones of {list(SCALES)}, "
                "each half the previous one"
            )
        if not norm:
            raise ConfigError("model.backbone.norm='': a simple feature pyramid needs a norm, such as LN")
        super().__init__(
            net=bottom_up,
            in_feature=in_features[0],
            out_channels=out_channels,
            scale_factors=scale_factors,
            top_block=top_block,
            norm=norm,
            square_pad=square_pad,
        )
        # the backbone has the name that it has in all other necks, and only that one
        self.bottom_up = self.net
        del self.net
        self.in_features = tuple(in_features)
        last = self._out_features[len(scale_factors) - 1]
        check_top_block(top_block, bottom_up, last, out_channels)

    @property
    def size_divisibility(self) -> int:
        """Images are padded to multiples of it, so that each grid is exactly half the finer one."""
        own = list(self._out_feature_strides.values())[: len(self.stages)]
        return padded_to(self.bottom_up, *own)

    @property
    def padding_constraints(self) -> dict[str, int]:
        """``size_divisibility`` and the side of the square."""
        return {"size_divisibility": self.size_divisibility, "square_size": self._square_pad}

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Compute the levels of a batch.

        Args:
            x: (N, C, H, W) images, H and W multiples of ``size_divisibility``.

        Returns:
            Name -> (N, out_channels, H / stride, W / stride), fine to coarse; sizes of levels from the top
            block are rounded up.
        """
        features = self.bottom_up(x)[self.in_feature]
        levels = [stage(features) for stage in self.stages]
        if self.top_block is not None:
            levels.extend(self.top_block(levels[-1]))
        return dict(zip(self._out_features, levels, strict=True))
