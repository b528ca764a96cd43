"""From an image of any size to what a detector takes: Pillow's resizing as tensor operations, and padding."""

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

__all__ = ["Prepared", "is_known", "number", "prepare", "resample", "resized_shape"]

PRECISION = 2**22  # Pillow's weights for images of 8 bits are multiples of 1 / PRECISION
#: What layers that must know ask of sizes as multiples of ``divisibility``, such as whether a map is empty,
#: is answered for these; the answer becomes an assertion in the traced program.
EXAMPLE = (9, 11)


@dataclass(frozen=True)
class Prepared:
    """An image as a detector takes it.

    Attributes:
        images: (1, 3, H, W) normalised, resized and padded at the right and at the bottom.
        size: (height, width) in pixels before it was padded: tensors of no dimension, float32.
        scale: (x, y), what boxes are multiplied with to be in pixels of the image as given; float32.
    """

    images: Tensor
    size: tuple[Tensor, Tensor]
    scale: tuple[Tensor, Tensor]


def number(value: int) -> Tensor:
    """A size as a tensor of no dimension, for arithmetic that an exporter sees."""
    return torch.full((), value, dtype=torch.float64)


def is_known(*sizes: int) -> bool:
    """Whether sizes are numbers, not names in a program that is being traced."""
    return not any(isinstance(size, torch.SymInt) for size in sizes)


def resized_shape(height: Tensor, width: Tensor, short_edge: int, max_size: int) -> tuple[Tensor, Tensor]:
    """The size that detectron2's ``ResizeShortestEdge`` gives an image; all in pixels, float64."""
    scale = short_edge / torch.minimum(height, width)
    # each side by detectron2's own product, so that it is rounded alike
    new_height = torch.where(height < width, float(short_edge), scale * height)
    new_width = torch.where(height < width, scale * width, float(short_edge))
    longest = torch.maximum(new_height, new_width)
    fits = torch.where(longest > max_size, max_size / longest, 1.0)
    return (new_height * fits + 0.5).floor(), (new_width * fits + 0.5).floor()


def resample(x: Tensor, size: int) -> Tensor:
    """Resize along the first dimension as Pillow does: by a triangle, as wide as the pixels that it makes.

    The arithmetic is Pillow's own (``libImaging/Resample.c``), whole numbers in float64, and so
    is the result.

    Args:
        x: (L, A, B) uint8.
        size: wanted, >= 1.

    Returns:
        (size, A, B) uint8.
    """
    given = number(x.shape[0])
    scale = given / number(size)
    reach = scale.clamp(min=1.0)
    if is_known(x.shape[0], size):
        taps = 2 * math.ceil(max(x.shape[0] / size, 1.0)) + 1
    else:
        taps = 2 * _whole(reach.ceil()) + 1
    centers = (torch.arange(size, dtype=torch.float64) + 0.5) * scale
    first = (centers - reach + 0.5).floor()
    taken = first[:, None] + torch.arange(taps, dtype=torch.float64)  # (size, taps)
    weights = (1 - ((taken - centers[:, None] + 0.5) / reach).abs()).clamp(min=0)
    weights = torch.where((taken >= 0) & (taken < given), weights, 0.0)
    weights = (weights / weights.sum(dim=1, keepdim=True) * PRECISION + 0.5).floor()
    rows = x.flatten(1)[taken.clamp(min=0).minimum(given - 1).long()]  # (size, taps, A B)
    sums = torch.matmul(weights[:, None], rows.double())[:, 0]
    pixels = (sums / PRECISION + 0.5).floor().clamp(0, 255)
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
    """Resize, normalise and pad an image as a detector's loader and the detector itself do.

    Args:
        image: (H, W, 3) uint8, channels as the detector takes them.
        short_edge: in pixels.
        max_size: of the long edge in pixels, which goes before ``short_edge``.
        mean: (3, 1, 1) of the pixels.
        std: (3, 1, 1) of the pixels.
        divisibility: sides are padded to multiples of this, >= 1.
        square: side of the square that images are padded to in pixels; 0: as little as need be.
    """
    height, width = image.shape[:2]
    if is_known(height, width):
        rows, columns = T.ResizeShortestEdge.get_output_shape(height, width, short_edge, max_size)
    else:
        new = resized_shape(number(height), number(width), short_edge, max_size)
        rows, columns = (_whole(side) for side in new)
    # columns first, as Pillow
    image = resample(image.transpose(0, 1), columns).transpose(0, 1)
    image = resample(image, rows)
    x = (image.permute(2, 0, 1) - mean) / std
    bottom, right = (
        _padded(side, divisibility, square, example) - side
        for side, example in ((rows, EXAMPLE[0]), (columns, EXAMPLE[1]))
    )
    return Prepared(
        F.pad(x, (0, right, 0, bottom))[None],
        (number(rows).float(), number(columns).float()),
        ((number(width) / number(columns)).float(), (number(height) / number(rows)).float()),
    )


def _padded(side: int, divisibility: int, square: int, example: int) -> Any:
    """The size that a side is padded to in pixels."""
    if square:
        side = square
    if is_known(side):
        return round_up(side, divisibility)
    # as a multiple of a whole number, so that strides are seen to divide it, and at least what backbones pad
    # to, so that they are seen not to: only a side of an image 50 times as long is less
    least = ceil_div(SMALLEST_SIDE, divisibility)
    times = _whole(((number(side) + (divisibility - 1)) / divisibility).floor().clamp(min=least), least)
    times.node.shape_env.set_real_tensor_prop_unbacked_vals(times.node.expr, example)
    return divisibility * times


def _whole(value: Tensor, least: int = 1) -> Any:
    """A tensor of no dimension, >= ``least``, as a size that an exporter knows by name only."""
    size = value.long().item()
    torch._check(size >= least)
    return size
