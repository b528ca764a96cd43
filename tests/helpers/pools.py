"""A backbone for tests of necks."""

from __future__ import annotations

from detectron2.modeling import Backbone
from torch import Tensor, nn

NAMES = ("res2", "res3", "res4", "res5")


class Pools(Backbone):
    """Average-pooled maps with the given strides in pixels, of 2 channels each, without parameters."""

    def __init__(self, *strides: int) -> None:
        super().__init__()
        self._out_features = list(NAMES[: len(strides)])
        self._out_feature_strides = dict(zip(NAMES, strides, strict=False))
        self._out_feature_channels = dict.fromkeys(NAMES, 2)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {
            name: nn.functional.avg_pool2d(x[:, :2], self._out_feature_strides[name])
            for name in self._out_features
        }
