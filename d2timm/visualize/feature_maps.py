"""Draw the feature maps of a detector's backbone and neck for an image: one map for each level.

The first three principal components of a level's channels are shown as red, green and blue.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.data.detection_utils import convert_image_to_rgb
from torch import Tensor, nn

from ..backbone.timm_backbone import TimmBackbone
from ..utils.images import Picture
from ..utils.sizes import ceil_div
from .image_grid import Tile, write_grid

__all__ = [
    "FeatureMap",
    "Levels",
    "backbone_of",
    "draw_feature_maps",
    "image_tile",
    "levels_of",
    "principal_colors",
]

QUANTILES = (0.01, 0.99)  # of a component; they become 0 and 255


@dataclass(frozen=True)
class FeatureMap:
    """A level of a backbone or neck.

    Attributes:
        name: such as ``res2`` or ``p2``.
        stride: in pixels.
        map: (C, ceil(h / stride), ceil(w / stride)) for an image of h x w pixels, on the CPU.
    """

    name: str
    stride: int
    map: Tensor

    def __str__(self) -> str:
        channels, height, width = self.map.shape
        return f"{self.name}: {channels} channels, {height}×{width}"


@dataclass(frozen=True)
class Levels:
    """The feature maps of a detector for an image.

    Attributes:
        input: (1, C, H, W), the backbone's input: the image, normalised and padded.
        backbone: levels of the backbone, finest first.
        neck: levels of the neck; empty if there is no neck.
    """

    input: Tensor
    backbone: list[FeatureMap]
    neck: list[FeatureMap]


def backbone_of(model: nn.Module) -> TimmBackbone:
    """The timm backbone of a detector."""
    return next(module for module in model.modules() if isinstance(module, TimmBackbone))


def levels_of(model: nn.Module, entry: Mapping[str, Any]) -> Levels:
    """Run a detector and collect the outputs of its backbone and neck.

    Args:
        model: in eval mode.
        entry: detectron2's input for an image: ``image`` (C, h, w) from 0 to 255.
    """
    inputs: list[Tensor] = []
    outputs: dict[nn.Module, Mapping[str, Tensor]] = {}
    backbone: nn.Module = backbone_of(model)
    neck = model.get_submodule("backbone")
    hooks = [backbone.register_forward_pre_hook(lambda _, arguments: inputs.append(arguments[0]))]
    for module in {backbone, neck}:
        hooks.append(module.register_forward_hook(lambda module, _, output: outputs.update({module: output})))
    try:
        with torch.no_grad():
            model([dict(entry)])
    finally:
        for hook in hooks:
            hook.remove()
    size = entry["image"].shape[-2:]
    return Levels(
        inputs[0],
        _crop_levels(backbone, outputs[backbone], size),
        _crop_levels(neck, outputs[neck], size) if neck is not backbone else [],
    )


def _crop_levels(module: Any, maps: Mapping[str, Tensor], size: Sequence[int]) -> list[FeatureMap]:
    """The levels of a module without the cells of the padding."""
    levels = []
    for name, shape in module.output_shape().items():
        height, width = (ceil_div(side, shape.stride) for side in size)
        levels.append(FeatureMap(name, shape.stride, maps[name][0, :, :height, :width].float().cpu()))
    return levels


def principal_colors(features: Tensor) -> Picture:
    """Show the first three principal components of a map's channels as colours.

    Args:
        features: (C, h, w).

    Returns:
        (h, w, 3): each component stretched from its 1st to its 99th percentile. The sign of a component is
        arbitrary; it is chosen so that the largest weight is positive.
    """
    channels, height, width = features.shape
    cells = features.flatten(1).T.double()  # (h * w, C)
    cells = cells - cells.mean(dim=0)
    # Both matrices lead to the same components; the smaller one is decomposed
    if channels <= len(cells):
        weights = torch.linalg.eigh(cells.T @ cells)[1].flip(1)[:, :3]
    else:
        scores = torch.linalg.eigh(cells @ cells.T)[1].flip(1)[:, :3]
        weights = cells.T @ scores
        weights = weights / weights.norm(dim=0).clamp(min=1e-12)
    largest = weights.gather(0, weights.abs().argmax(dim=0, keepdim=True))
    components = cells @ (weights * torch.where(largest < 0, -1.0, 1.0))  # (h * w, 3 or fewer)
    low, high = torch.quantile(components, torch.tensor(QUANTILES, dtype=components.dtype), dim=0)
    spread = (high - low).clamp(min=1e-9)
    scaled = torch.where(high - low > 1e-9, (components - low) / spread, 0.5).clamp(0, 1)
    colors = torch.full((height * width, 3), 0.5, dtype=components.dtype)
    colors[:, : scaled.shape[1]] = scaled
    picture: Picture = (255 * colors).round().to(torch.uint8).view(height, width, 3).numpy()
    return picture


def image_tile(entry: Mapping[str, Any], image_format: str) -> Tile:
    """The resized image that a detector gets, as a tile of a grid.

    Args:
        entry: as in ``levels_of``.
        image_format: the detector's image format, such as ``RGB``.
    """
    pixels = convert_image_to_rgb(entry["image"].permute(1, 2, 0), image_format)
    return Tile(f"image: {pixels.shape[0]}×{pixels.shape[1]}", np.asarray(pixels, np.uint8))


def draw_feature_maps(file: Path, image: Tile, levels: Levels) -> None:
    """Draw an image and the backbone's levels in a row, and the neck's levels below.

    Args:
        file: the PNG to write.
        image: from ``image_tile``.
        levels: from ``levels_of`` for the same image.
    """
    backbone, neck = (
        [Tile(str(level), principal_colors(level.map)) for level in part]
        for part in (levels.backbone, levels.neck)
    )
    write_grid(file, [[image, *backbone], *([neck] if neck else [])])
