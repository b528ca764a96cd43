"""The facts about a timm model as a feature extractor, and the extraction of its features.

``probing.probe`` determines the facts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import timm
import torch
from torch import Tensor

from ..utils.sizes import Size, round_up_size
from .meta import TimmModel, create_on_meta

__all__ = ["SMALLEST_SIDE", "BackboneSpec", "Feature", "InputSpec", "Kwargs", "extract"]

#: Keyword arguments in hashable form: (name, value) pairs
Kwargs: TypeAlias = tuple[tuple[str, Any], ...]

#: Every backbone accepts images whose sides have at least this many pixels.
SMALLEST_SIDE = 32


@dataclass(frozen=True)
class Feature:
    """One feature map of a timm model.

    Attributes:
        index: position in timm's ``feature_info``, >= 0; ``out_indices`` refers to it.
        name: path of the module that computes the feature.
        channels: number of channels.
        stride: image pixels per cell, measured; a whole number where ``exact``.
        exact: whether the grid has ``ceil(side / stride) - lost`` cells per side at every image size that
            the model accepts. Otherwise the grid is stretched over the image, however many cells it has.
        lost: cells per side that unpadded convolutions remove, half of them at each end; >= 0.
    """

    index: int
    name: str
    channels: int
    stride: float
    exact: bool
    lost: int


@dataclass(frozen=True)
class InputSpec:
    """How images of any size are adapted to a model, and the model to the images.

    Attributes:
        route: ``any size``, ``dynamic size`` (timm's ``dynamic_img_size``), ``padding``, ``dynamic size and
            padding``, ``multi-size`` or ``resizing``.
        multiple: sides are padded to a multiple of this many pixels; 1: no padding.
        smallest: sides are padded to at least this many pixels.
        size: (height, width) in pixels to which images are resized; None: they are not resized.
        multisize: the model is created again, with the same weights, for the size of the ``image`` or for a
            ``square`` that contains it; None: it is not created again.
    """

    route: str
    multiple: int = 1
    smallest: int = SMALLEST_SIDE
    size: Size | None = None
    multisize: Literal["image", "square"] | None = None

    def __str__(self) -> str:
        if self.size:
            return f"{self.route} to {self.size[0]}x{self.size[1]}"
        if self.multiple == 1:
            return self.route
        return self.route + (", padded" if self.multisize else "") + f" to multiples of {self.multiple}"


@dataclass(frozen=True)
class BackboneSpec:
    """What is known about a timm model as a backbone before its weights exist.

    Attributes:
        model_name: first argument of ``timm.create_model``.
        kwargs: keyword arguments of ``timm.create_model``, including those that the route requires.
        channels: number of image channels.
        native_size: (height, width) in pixels of the images for which the model was designed.
        input_spec: how images are adapted to the model.
        features: all feature maps, from shallow to deep.
        refused: (route, reason) for each preferable route that the model does not support.
    """

    model_name: str
    kwargs: Kwargs
    channels: int
    native_size: Size
    input_spec: InputSpec
    features: tuple[Feature, ...]
    refused: tuple[tuple[str, str], ...] = ()

    def create(self, pretrained: bool = False) -> TimmModel:
        """Create the complete timm model; on ``meta``, without weights, if that is torch's default device.

        Args:
            pretrained: load timm's weights; ignored on ``meta``.
        """
        if torch.empty(0).is_meta:
            return self.create_on_meta()
        return timm.create_model(self.model_name, pretrained=pretrained, **dict(self.kwargs))

    def create_on_meta(self) -> TimmModel:
        """Create the complete timm model on ``meta``, without weights."""
        return create_on_meta(self.model_name, **dict(self.kwargs))

    @property
    def trial_size(self) -> Size:
        """(height, width) in pixels of an image that the model accepts without padding or resizing."""
        if self.input_spec.multisize:
            return self.native_size
        return self.input_spec.size or round_up_size(self.native_size, self.input_spec.multiple)


def extract(model: TimmModel, images: Tensor, indices: Sequence[int]) -> dict[int, Tensor]:
    """Run a timm model up to the deepest of the requested features.

    Args:
        model: a complete or pruned timm model.
        images: (N, C, H, W), normalised.
        indices: indices of the features, each >= 0, in any order.

    Returns:
        Feature index -> (N, C_i, H_i, W_i), whatever layout the model uses internally.
    """
    wanted = sorted(set(indices))
    maps = model.forward_intermediates(
        images, indices=wanted, stop_early=True, output_fmt="NCHW", intermediates_only=True
    )
    return dict(zip(wanted, maps, strict=True))
