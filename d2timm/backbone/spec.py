"""What a timm model gives a detector, and what it needs in return: the facts, and how features are taken.

``probe`` finds the facts.
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

Kwargs: TypeAlias = tuple[tuple[str, Any], ...]

SMALLEST_SIDE = 32


@dataclass(frozen=True)
class Feature:
    """One feature map of a timm model.

    Attributes:
        index: its place in timm's ``feature_info``, what ``out_indices`` counts.
        name: the module that ends there.
        channels: number of channels.
        stride: image pixels a cell, measured; a whole number where ``exact``.
        exact: at every size that the model takes the grid has ``ceil(size / stride) - lost`` cells a
            side. If not, the grid is stretched over the image, whatever its number of cells.
        lost: cells that convolutions without padding take off a side, half at each end.
    """

    index: int
    name: str
    channels: int
    stride: float
    exact: bool
    lost: int


@dataclass(frozen=True)
class InputSpec:
    """What is done to an image of any size before the model sees it, and to the model.

    Attributes:
        route: ``any size``, ``dynamic size`` (a keyword of the model's own), ``padding``, ``multi-size`` or
            ``resizing``.
        multiple: sides are padded to a multiple of this many pixels; 1: none is needed.
        smallest: sides are padded to at least this many pixels.
        size: (height, width) to which the image is resized, or None.
        multisize: the model is made anew, with the same weights, for the size of the ``image`` or for a
            ``square`` that holds it; None: it is not.
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
    """A timm model as a source of features: what is known of it before its weights are made.

    Attributes:
        model_name: what ``timm.create_model`` is given, with ``kwargs``.
        kwargs: keywords, those that the chosen route asks for included.
        channels: image channels.
        native_size: (height, width) of the images that the model was made for.
        input_spec: what is done to the image before the model sees it.
        features: all feature maps, shallow to deep.
        refused: (route, reason) of the routes that come first and that the model does not take.
    """

    model_name: str
    kwargs: Kwargs
    channels: int
    native_size: Size
    input_spec: InputSpec
    features: tuple[Feature, ...]
    refused: tuple[tuple[str, str], ...] = ()

    def create(self, pretrained: bool = False) -> TimmModel:
        """Make the full timm model, without numbers where ``meta`` is torch's device."""
        if torch.empty(0).is_meta:
            return self.create_on_meta()
        return timm.create_model(self.model_name, pretrained=pretrained, **dict(self.kwargs))

    def create_on_meta(self) -> TimmModel:
        """Make the full timm model without numbers."""
        return create_on_meta(self.model_name, **dict(self.kwargs))

    @property
    def trial_size(self) -> Size:
        """(height, width) of an image that the model takes as it is."""
        if self.input_spec.multisize:
            return self.native_size
        return self.input_spec.size or round_up_size(self.native_size, self.input_spec.multiple)


def extract(model: TimmModel, images: Tensor, indices: Sequence[int]) -> dict[int, Tensor]:
    """Run a timm model as far as its features need.

    Args:
        model: a full or pruned timm model.
        images: (N, C, H, W), normalised.
        indices: which features, each >= 0.

    Returns:
        Feature index -> (N, C_i, H_i, W_i), whatever layout the model uses inside.
    """
    wanted = sorted(set(indices))
    maps = model.forward_intermediates(
        images, indices=wanted, stop_early=True, output_fmt="NCHW", intermediates_only=True
    )
    return dict(zip(wanted, maps, strict=True))
