"""Boxes and masks as tensor operations that can be exported."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import nms

__all__ = ["clip_boxes", "is_valid", "paste_masks", "suppress", "suppress_by_class", "top_scores"]

FAR_AWAY = -1e6  # pixels


def clip_boxes(boxes: Tensor, size: tuple[Tensor, Tensor]) -> Tensor:
    """Clip boxes (..., 4) to an image of (height, width)."""
    height, width = size
    x1, y1, x2, y2 = boxes.unbind(dim=-1)
    zero = torch.zeros_like(height)
    clipped = (x1.clamp(zero, width), y1.clamp(zero, height), x2.clamp(zero, width), y2.clamp(zero, height))
    return torch.stack(clipped, dim=-1)


def is_valid(boxes: Tensor) -> Tensor:
    """Whether each of boxes (N, 4) is finite and has a positive area: (N,) booleans."""
    has_area = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    return has_area & torch.isfinite(boxes).all(dim=1)


def top_scores(scores: Tensor, limit: int) -> tuple[Tensor, Tensor]:
    """The highest of scores (N,), at most ``limit``, and their indices; highest first."""
    return scores.topk(torch.sym_min(scores.shape[0], limit))


def suppress(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """Non-maximum suppression.

    Args:
        boxes: (N, 4) in pixels.
        scores: (N,).
        threshold: 0 to 1; a box is dropped if its intersection over union with a better one is larger.

    Returns:
        Indices of the boxes that are kept, highest score first.
    """
    # torchvision asserts for exporters that at least two boxes are kept: add two, which come last
    extra = FAR_AWAY + torch.tensor([[0.0, 0, 1, 1], [9, 0, 10, 1]])
    lowest = scores.new_full((2,), torch.finfo(scores.dtype).min)
    keep: Tensor = nms(torch.cat([boxes, extra]), torch.cat([scores, lowest]), threshold)[:-2]
    return keep


def suppress_by_class(boxes: Tensor, scores: Tensor, classes: Tensor, threshold: float, limit: int) -> Tensor:
    """Non-maximum suppression within each class, as torchvision does it for few boxes.

    Args:
        boxes: (N, 4) in pixels.
        scores: (N,).
        classes: (N,).
        threshold: 0 to 1; a box is dropped if its intersection over union with a better one is larger.
        limit: the largest number of boxes to keep.

    Returns:
        Indices of the boxes that are kept, highest score first.
    """
    # Move each class to an area of its own, so that boxes of different classes do not overlap
    farthest = torch.cat([boxes.flatten(), boxes.new_zeros(1)]).max()
    shifted = boxes + (classes.to(boxes.dtype) * (farthest + 1))[:, None]
    return suppress(shifted, scores, threshold)[:limit]


def paste_masks(masks: Tensor, boxes: Tensor, height: int, width: int) -> Tensor:
    """Paste masks into an image, interpolated at pixel centres like detectron2's ``paste_masks_in_image``.

    Boxes are parallel to the axes, so rows and columns are interpolated one after the other, by matrices.

    Args:
        masks: (N, M, M), 0 to 1.
        boxes: (N, 4) in pixels, with positive areas.
        height: of the image, in pixels.
        width: of the image, in pixels.

    Returns:
        (N, height, width) booleans: whether a pixel is at least 0.5.
    """
    x1, y1, x2, y2 = boxes.unbind(dim=1)
    rows = _interpolation(height, y1, y2, masks.shape[1])  # (N, height, M)
    columns = _interpolation(width, x1, x2, masks.shape[2])
    return rows @ masks @ columns.transpose(1, 2) >= 0.5


def _interpolation(pixels: int, start: Tensor, end: Tensor, cells: int) -> Tensor:
    """Weights (N, pixels, cells) of each box's cells for each pixel; boxes span ``start`` to ``end`` (N,)."""
    centers = torch.arange(pixels, dtype=torch.float32) + 0.5
    # to -1 ... 1 and from there to cells, like grid_sample
    place = (centers - start[:, None]) / (end - start)[:, None] * 2 - 1
    place = ((place + 1) * cells - 1) / 2
    return (1 - (place[:, :, None] - torch.arange(cells)).abs()).clamp(min=0)
