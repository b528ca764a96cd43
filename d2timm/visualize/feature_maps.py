"""Sheets of what a detector's backbone and neck make of an image: a map for each level.

Of the channels of a level the first three principal components are shown as red, green and blue.
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

SHOWN = (0.01, 0.99)  # quantiles of a component that become 0 and 255


@dataclass(frozen=True)
class FeatureMap:
    """A level of a backbone or neck.

    Attributes:
        name: such as ``res2`` or ``p2``.
        stride: in pixels.
        map: (C, ceil(h / stride), ceil(w / stride)) of an image of h x w pixels, on the CPU.
    """

    name: str
    stride: int
    map: Tensor

    def __str__(self) -> str:
        channels, height, width = self.map.shape
        return f"{self.name}: {channels} channels, {height}×{width}"


@dataclass(frozen=True)
class Levels:
    """What is seen inside a detector while it looks at an image.

    Attributes:
        seen: (1, C, H, W), what the backbone is given: normalised and padded.
        backbone: its levels, fine to coarse.
        neck: its levels; empty where there is none.
    """

    seen: Tensor
    backbone: list[FeatureMap]
    neck: list[FeatureMap]


def backbone_of(model: nn.Module) -> TimmBackbone:
    """The timm backbone of a detector."""
    return next(module for module in model.modules() if isinstance(module, TimmBackbone))


def levels_of(model: nn.Module, entry: Mapping[str, Any]) -> Levels:
    """Run a detector, and take what its backbone and neck give.

    Args:
        model: in eval mode.
        entry: ``image`` (C, h, w) of 0 to 255, as a detector of detectron2 takes it.
    """
    seen: list[Tensor] = []
    given: dict[nn.Module, Mapping[str, Tensor]] = {}
    backbone: nn.Module = backbone_of(model)
    neck = model.get_submodule("backbone")
    hooks = [backbone.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))]
    for module in {backbone, neck}:
        hooks.append(module.register_forward_hook(lambda module, _, output: given.update({module: output})))
    try:
        with torch.no_grad():
            model([dict(entry)])
    finally:
        for hook in hooks:
            hook.remove()
    size = entry["image"].shape[-2:]
    return Levels(
        seen[0],
        _levels(backbone, given[backbone], size),
        _levels(neck, given[neck], size) if neck is not backbone else [],
    )


def _levels(module: Any, maps: Mapping[str, Tensor], size: Sequence[int]) -> list[FeatureMap]:
    """The levels without what stands for padding."""
    levels = []
    for name, shape in module.output_shape().items():
        height, width = (-(-side // shape.stride) for side in size)
        levels.append(FeatureMap(name, shape.stride, maps[name][0, :, :height, :width].float().cpu()))
    return levels


def principal_colors(features: Tensor) -> Picture:
    """The first three principal components of a map's channels as colours.

    Args:
        features: (C, h, w).

    Returns:
        (h, w, 3): each component stretched from its 1st to its 99th percentile. Its sign means nothing; it is
        such that the greatest weight of a channel is positive.
    """
    channels, height, width = features.shape
    cells = features.flatten(1).T.double()  # (h * w, C)
    cells = cells - cells.mean(dim=0)
    # of the two matrices with the same components, the smaller
    if channels <= len(cells):
        weights = torch.linalg.eigh(cells.T @ cells)[1].flip(1)[:, :3]
    else:
        scores = torch.linalg.eigh(cells @ cells.T)[1].flip(1)[:, :3]
        weights = cells.T @ scores
        weights = weights / weights.norm(dim=0).clamp(min=1e-12)
    largest = weights.gather(0, weights.abs().argmax(dim=0, keepdim=True))
    shown = cells @ (weights * torch.where(largest < 0, -1.0, 1.0))  # (h * w, 3 or fewer)
    low, high = torch.quantile(shown, torch.tensor(SHOWN, dtype=shown.dtype), dim=0)
    spread = (high - low).clamp(min=1e-9)
    scaled = torch.where(high - low > 1e-9, (shown - low) / spread, 0.5).clamp(0, 1)
    colors = torch.full((height * width, 3), 0.5, dtype=shown.dtype)
    colors[:, : scaled.shape[1]] = scaled
    picture: Picture = (255 * colors).round().to(torch.uint8).view(height, width, 3).numpy()
    return picture


def image_tile(entry: Mapping[str, Any], image_format: str) -> Tile:
    """The image as a detector sees it.

    Args:
        entry: as in ``levels_of``.
        image_format: as the detector's images are read.
    """
    pixels = convert_image_to_rgb(entry["image"].permute(1, 2, 0), image_format)
    return Tile(f"image: {pixels.shape[0]}×{pixels.shape[1]}", np.asarray(pixels, np.uint8))


def draw_feature_maps(file: Path, image: Tile, levels: Levels) -> None:
    """Write a sheet: the image and the backbone's levels in a row, the neck's below.

    Args:
        file: the PNG to write.
        image: what ``image_tile`` gives.
        levels: what ``levels_of`` gives for it.
    """
    backbone, neck = (
        [Tile(str(level), principal_colors(level.map)) for level in part]
        for part in (levels.backbone, levels.neck)
    )
    write_grid(file, [[image, *backbone], *([neck] if neck else [])])
