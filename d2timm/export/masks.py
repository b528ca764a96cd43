"""Masks of boxes put into an image."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["paste"]


def paste(masks: Tensor, boxes: Tensor, height: int, width: int) -> Tensor:
    """Bilinear samples of masks at the centers of pixels, as detectron2's ``paste_masks_in_image``.

    A box is upright, so that rows and columns are interpolated one after the other by matrices.

    Args:
        masks: (N, M, M), 0 to 1.
        boxes: (N, 4) in pixels, none empty.
        height: of the image in pixels.
        width: of the image in pixels.

    Returns:
        (N, height, width) booleans: what is at least 0.5.
    """
    x1, y1, x2, y2 = boxes.unbind(dim=1)
    rows = _interpolation(height, y1, y2, masks.shape[1])  # (N, height, M)
    columns = _interpolation(width, x1, x2, masks.shape[2])
    return rows @ masks @ columns.transpose(1, 2) >= 0.5


def _interpolation(pixels: int, start: Tensor, end: Tensor, cells: int) -> Tensor:
    """Weights (N, pixels, cells) of the cells of boxes from ``start`` to ``end``, (N,), in each pixel."""
    centers = torch.arange(pixels, dtype=torch.float32) + 0.5
    # to -1 ... 1 and from there to cells, as grid_sample has it
    place = (centers - start[:, None]) / (end - start)[:, None] * 2 - 1
    place = ((place + 1) * cells - 1) / 2
    return (1 - (place[:, :, None] - torch.arange(cells)).abs()).clamp(min=0)
