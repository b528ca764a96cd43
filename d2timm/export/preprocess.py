"""Turn an image of any size into a detector's input: torch's resizing of bytes and padding as operators."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.data import transforms as T
from torch import Tensor

from ..backbone.spec import SMALLEST_SIDE
from ..utils.sizes import ceil_div, round_up

__all__ = ["Prepared", "prepare", "resample", "resized_shape", "scalar"]

#: torch's weights for bytes have 16 bits: the largest weight times the scale is less than LIMIT
LIMIT, MOST_BITS = 2**15, 22
#: Example height and width of padded images, as multiples of ``divisibility``. Layers that branch on a size,
#: such as whether a map is empty, are traced for these; the traced program asserts that the branch is taken.
EXAMPLE = (9, 11)


@dataclass(frozen=True)
class Prepared:
    """The input of a detector.

    Attributes:
        images: (1, 3, H, W) normalised, resized, and padded on the right and at the bottom.
        size: (height, width) before padding, in pixels; float32 scalars.
        scale: (x, y) factors from boxes in the resized image to boxes in the original one; float32 scalars.
    """

    images: Tensor
    size: tuple[Tensor, Tensor]
    scale: tuple[Tensor, Tensor]


def scalar(value: int) -> Tensor:
    """A size as a float64 scalar tensor, so that arithmetic on it becomes part of the exported program."""
    return torch.full((), value, dtype=torch.float64)


def resized_shape(height: Tensor, width: Tensor, short_edge: int, max_size: int) -> tuple[Tensor, Tensor]:
    """The (height, width) that detectron2's ``ResizeShortestEdge`` gives an image; in pixels, float64."""
    scale = short_edge / torch.minimum(height, width)
    # Each side is the same product as in detectron2, so that it is rounded the same way
    new_height = torch.where(height < width, float(short_edge), scale * height)
    new_width = torch.where(height < width, scale * width, float(short_edge))
    longest = torch.maximum(new_height, new_width)
    shrink = torch.where(longest > max_size, max_size / longest, 1.0)
    return (new_height * shrink + 0.5).floor(), (new_width * shrink + 0.5).floor()


def resample(x: Tensor, size: int) -> Tensor:
    """Resize the first dimension like ``d2timm.data.resizing.resize``, in operators that ONNX has.

    Reproduces torch's integer arithmetic for bytes (``aten/src/ATen/native/cpu/UpSampleKernel.cpp``) in
    float64, with equal results.

    Args:
        x: (L, A, B) uint8.
        size: the new length, >= 1.

    Returns:
        (size, A, B) uint8.
    """
    length = scalar(x.shape[0])
    scale = length / scalar(size)
    reach = scale.clamp(min=1.0)
    if _is_known(x.shape[0], size):
        taps = 2 * math.ceil(max(x.shape[0] / size, 1.0)) + 1
    else:
        taps = 2 * _to_size(reach.ceil()) + 1
    centers = (torch.arange(size, dtype=torch.float64) + 0.5) * scale
    first = (centers - reach + 0.5).floor()
    taken = first[:, None] + torch.arange(taps, dtype=torch.float64)  # (size, taps)
    weights = (1 - ((taken - centers[:, None] + 0.5) / reach).abs()).clamp(min=0)
    weights = torch.where((taken >= 0) & (taken < length), weights, 0.0)
    weights = weights / weights.sum(dim=1, keepdim=True)
    scales = 2.0 ** torch.arange(1, MOST_BITS + 1, dtype=torch.float64)
    bits = ((weights.max() * scales + 0.5).floor() < LIMIT).sum()
    precision = 2.0 ** bits.double()
    weights = (weights * precision + 0.5).floor()
    rows = x.flatten(1)[taken.clamp(min=0).minimum(length - 1).long()]  # (size, taps, A B)
    sums = torch.matmul(weights[:, None], rows.double())[:, 0]
    pixels = (sums / precision + 0.5).floor().clamp(0, 255)
    return pixels.to(torch.uint8).reshape(size, *x.shape[1:])


def prepare(
    image: Tensor,
    short_edge: int,
    max_size: int,
    mean: Tensor,
    std: Tensor,
    divisibility: int,
    square: int,
) -> Prepared:
    """Resize, normalise and pad an image as the data loader and the detector do.

    Args:
        image: (H, W, 3) uint8, in the detector's order of channels.
        short_edge: length of the short edge after resizing, in pixels.
        max_size: upper limit of the long edge in pixels; it takes precedence over ``short_edge``.
        mean: (3, 1, 1) of the pixels.
        std: (3, 1, 1) of the pixels.
        divisibility: sides are padded to multiples of this, >= 1.
        square: side in pixels of the square that images are padded to; 0: no more than necessary.
    """
    height, width = image.shape[:2]
    if _is_known(height, width):
        rows, columns = T.ResizeShortestEdge.get_output_shape(height, width, short_edge, max_size)
    else:
        shape = resized_shape(scalar(height), scalar(width), short_edge, max_size)
        rows, columns = (_to_size(side) for side in shape)
    # columns first, like torch
    image = resample(image.transpose(0, 1), columns).transpose(0, 1)
    image = resample(image, rows)
    x = (image.permute(2, 0, 1) - mean) / std
    bottom, right = (
        _padded(side, divisibility, square, example) - side
        for side, example in ((rows, EXAMPLE[0]), (columns, EXAMPLE[1]))
    )
    return Prepared(
        F.pad(x, (0, right, 0, bottom))[None],
        (scalar(rows).float(), scalar(columns).float()),
        ((scalar(width) / scalar(columns)).float(), (scalar(height) / scalar(rows)).float()),
    )


def _padded(side: int, divisibility: int, square: int, example: int) -> Any:
    """The padded length of a side, in pixels."""
    if square:
        side = square
    if _is_known(side):
        return round_up(side, divisibility)
    # A product, so that the exporter sees that strides divide it. The lower bound lets it see that backbones
    # need no padding of their own; only images with one side 50 times as long as the other fall below it.
    smallest = ceil_div(SMALLEST_SIDE, divisibility)
    count = ((scalar(side) + (divisibility - 1)) / divisibility).floor().clamp(min=smallest)
    multiples = _to_size(count, smallest)
    multiples.node.shape_env.set_real_tensor_prop_unbacked_vals(multiples.node.expr, example)
    return divisibility * multiples


def _is_known(*sizes: int) -> bool:
    """Whether sizes are numbers, not symbols in a program that is being traced."""
    return not any(isinstance(size, torch.SymInt) for size in sizes)


def _to_size(value: Tensor, smallest: int = 1) -> Any:
    """Turn a scalar tensor into a size: a symbol whose value the exporter knows to be >= ``smallest``."""
    size = value.long().item()
    torch._check(size >= smallest)
    return size
