"""Boxes as tensors, by operations that exporters know."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import nms

__all__ = ["best", "clip", "is_usable", "paste", "suppress", "suppress_by_class"]

AWAY = -1e6  # pixels


def clip(boxes: Tensor, size: tuple[Tensor, Tensor]) -> Tensor:
    """Boxes (..., 4) as far as they are inside an image of (height, width)."""
    height, width = size
    x1, y1, x2, y2 = boxes.unbind(dim=-1)
    zero = torch.zeros_like(height)
    return torch.stack(
        [
            x1.clamp(zero, width),
            y1.clamp(zero, height),
            x2.clamp(zero, width),
            y2.clamp(zero, height),
        ],
        dim=-1,
    )


def is_usable(boxes: Tensor) -> Tensor:
    """Which of boxes (N, 4) are finite and have an area, (N,)."""
    has_area = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    return has_area & torch.isfinite(boxes).all(dim=1)


def best(scores: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """The highest of scores (N,), at most so many, and their places, the best first."""
    return scores.topk(torch.sym_min(scores.shape[0], most))


def suppress(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """Non-maximum suppression.

    Args:
        boxes: (N, 4) in pixels.
        scores: (N,).
        threshold: boxes whose intersection over union with a better one is larger are dropped, 0 to 1.

    Returns:
        Places of those that are kept, the best first.
    """
    # torchvision tells exporters that at least two are kept, and so two more are given, which come last
    far = torch.tensor([[AWAY, AWAY, AWAY + 1, AWAY + 1], [AWAY + 9, AWAY, AWAY + 10, AWAY + 1]])
    last = scores.new_full((2,), torch.finfo(scores.dtype).min)
    keep: Tensor = nms(torch.cat([boxes, far]), torch.cat([scores, last]), threshold)[:-2]
    return keep


def suppress_by_class(boxes: Tensor, scores: Tensor, classes: Tensor, threshold: float, most: int) -> Tensor:
    """Non-maximum suppression in each class, by torchvision's way for few boxes.

    Args:
        boxes: (N, 4) in pixels.
        scores: (N,).
        classes: (N,).
        threshold: boxes whose intersection over union with a better one is larger are dropped, 0 to 1.
        most: how many are kept.

    Returns:
        Places of those that are kept, the best first.
    """
    # classes are moved apart, so that they do not meet
    farthest = torch.cat([boxes.flatten(), boxes.new_zeros(1)]).max()
    apart = boxes + (classes.to(boxes.dtype) * (farthest + 1))[:, None]
    return suppress(apart, scores, threshold)[:most]


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
