"""Run lengths (COCO's RLE) of the masks of a mask head, without pasting them into images.

    mask (M, M) -> profiles of the image's columns -> rows where they cross 0.5 -> run lengths -> text

detectron2 samples a mask bilinearly at the centre of each pixel and compares with 0.5. In a column of the
image, the mask is a polyline through M points: its crossings of 0.5 follow from these points, and not from
all pixels. Where rounding could decide about a pixel, detectron2's own computation decides about its
column, so that the text equals that of the pasted mask byte for byte.

Only NumPy's loops are used, and torch for one mask at a time: neither starts threads, and neither holds a
lock while another thread forks a process.
"""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import grid_sample

__all__ = ["encode_counts", "encode_roi_masks"]

Floats: TypeAlias = NDArray[np.float32]
Integers: TypeAlias = NDArray[np.int64]

THRESHOLD = 0.5
#: Bound of the rounding errors of a value, in units of the last place of a position in the mask: computing a
#: position in 7 steps may err by 3.5 units, and a value changes by at most 1 from cell to cell
ROUNDING = 8
BITS = 5  # of a count in a character of the text
MOST_GROUPS = 7  # characters of a count of 32 bits


def encode_roi_masks(masks: Floats, boxes: Floats, size: tuple[int, int]) -> list[bytes]:
    """Encode the masks of an image.

    Args:
        masks: (N, M, M) probabilities, 0 to 1.
        boxes: (N, 4) x0, y0, x1, y1 in pixels, x0 < x1 and y0 < y1.
        size: (H, W) of the image.

    Returns:
        The ``counts`` that pycocotools gives for the masks pasted by detectron2's ``paste_masks_in_image``.
    """
    height, width = size
    stride = height * width + 1  # a mask may end behind its last pixel
    columns = _Axis.of(boxes[:, 0], boxes[:, 2], width)
    profiles = _profiles(masks, boxes, columns)
    column, row, unclear = _crossings(profiles, columns.owner, boxes)
    if len(unclear):
        clear = np.isin(column, unclear, invert=True)
        sampled = _sampled(masks, boxes, columns, unclear, height)
        column = np.concatenate([column[clear], sampled[0]])
        row = np.concatenate([row[clear], sampled[1]])
    changes = columns.owner[column] * stride + columns.pixel[column] * height + row.clip(0, height)
    changes.sort(kind="stable")
    owner, pixel = np.divmod(_odd(changes), stride)
    inside = pixel < stride - 1
    return encode_counts(*_counts(owner[inside], pixel[inside], len(masks), stride - 1))


class _Axis(NamedTuple):
    """The pixels under the boxes in one direction: those of the first box, then those of the second, ..."""

    owner: Integers  # index of the box
    pixel: Integers  # index in the image

    @classmethod
    def of(cls, low: Floats, high: Floats, length: int, margin: int = 0) -> _Axis:
        """The pixels between ``low`` and ``high`` (N,).

        Args:
            low: the lower coordinates of the boxes.
            high: the higher ones.
            length: of the image.
            margin: further pixels at both ends, also outside the image.
        """
        first = np.floor(low).clip(0, length).astype(np.int64) - margin
        sizes = np.ceil(high).clip(0, length).astype(np.int64) + margin - first
        owner = np.repeat(np.arange(len(low)), sizes.clip(0))
        return cls(owner, np.arange(len(owner)) - (np.cumsum(sizes) - sizes - first)[owner])


def _relative(pixel: Integers, low: Any, high: Any) -> Floats:
    """Positions of the centres of pixels, -1 at ``low`` and 1 at ``high``, rounded as in detectron2."""
    centre = pixel.astype(np.float32) + np.float32(0.5)
    relative: Floats = (centre - low) / (high - low) * np.float32(2) - np.float32(1)
    return relative


def _profiles(masks: Floats, boxes: Floats, columns: _Axis) -> Floats:
    """Values of the masks minus the threshold in the columns, (columns, M + 2) with padding at both ends."""
    count, cells = masks.shape[:2]
    padded = np.full((count, cells + 2, cells + 2), -THRESHOLD, np.float32)
    np.subtract(masks.transpose(0, 2, 1), np.float32(THRESHOLD), out=padded[:, 1:-1, 1:-1])
    flat = padded.reshape(-1, cells + 2)
    low, high = boxes[:, 0][columns.owner], boxes[:, 2][columns.owner]
    first, share = _cells(columns.pixel, low, high, cells)
    first += columns.owner * (cells + 2)
    profiles = flat.take(first, 0)
    slope = flat.take(first + 1, 0)
    slope -= profiles
    slope *= share[:, None]
    profiles += slope
    return profiles


def _cells(pixel: Integers, low: Floats, high: Floats, cells: int) -> tuple[Integers, Floats]:
    """The cell before the centre of each pixel, counted from the padding, and the share of the next cell."""
    position = (_relative(pixel, low, high) + np.float32(1)) * np.float32(cells / 2) + np.float32(0.5)
    position = position.clip(0, np.nextafter(np.float32(cells + 1), np.float32(0)))
    before = position.astype(np.int64)
    return before, (position - before).astype(np.float32)


def _crossings(profiles: Floats, owner: Integers, boxes: Floats) -> tuple[Integers, Integers, Integers]:
    """Where the profiles cross 0: the column and the first row behind; and columns where that is unclear.

    It is clear if no point of the profile is close to 0, and neither are the pixels on both sides: then no
    other pixel is.
    """
    cells = profiles.shape[1] - 2
    tolerance = np.float32(ROUNDING * cells * np.finfo(np.float32).eps)
    positive = profiles >= 0
    column, cell = np.divmod(np.flatnonzero(positive[:, 1:] != positive[:, :-1]), cells + 1)
    flat, point = profiles.reshape(-1), column * (cells + 2) + cell
    before, behind = flat[point], flat[point + 1]
    low, high = boxes[:, 1][owner[column]], boxes[:, 3][owner[column]]
    centre = (cell - 0.5 + before / (before - behind)) / cells * (high - low) + low
    row = np.ceil(centre - 0.5).astype(np.int64)

    unclear = [np.flatnonzero(np.abs(flat) <= tolerance) // (cells + 2)]
    for neighbour in (row - 1, row):
        first, share = _cells(neighbour, low, high, cells)
        first += column * (cells + 2)
        start = flat[first]
        value = start + share * (flat[first + 1] - start)
        unclear.append(column[np.abs(value) <= tolerance])
    return column, row, np.unique(np.concatenate(unclear))


def _sampled(
    masks: Floats, boxes: Floats, columns: _Axis, chosen: Integers, height: int
) -> tuple[Integers, Integers]:
    """Where the masks begin and end in the chosen columns, computed as in detectron2: columns and rows."""
    owner = columns.owner[chosen]
    low, high = boxes[:, 1][owner], boxes[:, 3][owner]
    rows = _Axis.of(low, high, height, margin=2)  # the first and the last one are outside
    relative = np.empty((1, 1, len(rows.owner), 2), np.float32)
    x0, x1 = boxes[:, 0][owner], boxes[:, 2][owner]
    relative[..., 0] = _relative(columns.pixel[chosen], x0, x1)[rows.owner]
    relative[..., 1] = _relative(rows.pixel, low[rows.owner], high[rows.owner])
    grid, inputs = torch.from_numpy(relative), torch.from_numpy(masks)[:, None]
    inside = np.empty(len(rows.owner), np.bool_)
    bounds = np.flatnonzero(np.diff(owner[rows.owner], prepend=-1, append=-1)).tolist()
    for start, end in itertools.pairwise(bounds):
        mask = owner[rows.owner[start]]
        values = grid_sample(inputs[mask : mask + 1], grid[:, :, start:end], align_corners=False)
        inside[start:end] = values.numpy().reshape(-1) >= THRESHOLD
    inside &= (rows.pixel >= 0) & (rows.pixel < height)
    change = np.flatnonzero(inside[1:] != inside[:-1]) + 1
    return chosen[rows.owner[change]], rows.pixel[change]


def _odd(changes: Integers) -> Integers:
    """The sorted values that occur an odd number of times: two changes at a pixel are none."""
    ends = np.flatnonzero(np.append(changes[1:] != changes[:-1], True)) if len(changes) else changes
    odd: Integers = changes[ends[np.diff(ends, prepend=-1) % 2 == 1]]
    return odd


def _counts(owner: Integers, pixel: Integers, count: int, pixels: int) -> tuple[Integers, Integers]:
    """Run lengths of all masks, one mask after the other, and how many belong to each mask.

    Args:
        owner: index of the mask of each change from outside to inside or back.
        pixel: its index in the image, column by column.
        count: number of masks.
        pixels: number of pixels of the image.
    """
    lengths = np.bincount(owner, minlength=count) + 1
    place = np.arange(len(owner)) + owner
    ends, starts = np.full(len(owner) + count, pixels), np.zeros(len(owner) + count, np.int64)
    ends[place] = pixel
    starts[place + 1] = pixel
    return ends - starts, lengths


def encode_counts(counts: Integers, lengths: Integers) -> list[bytes]:
    """Run lengths in COCO's text, of several masks at once.

    A count, or from the fourth on its difference from the last but one, is written in groups of 5 bits, the
    lowest first. The sixth bit says that another group follows; the first one not written is its sign.

    Args:
        counts: run lengths of all masks, one mask after the other.
        lengths: how many belong to each mask.
    """
    starts = np.cumsum(lengths) - lengths
    late = np.flatnonzero(np.arange(len(counts)) - np.repeat(starts, lengths) > 2)
    rest = counts.copy()
    rest[late] -= counts[late - 2]
    table = np.zeros((len(counts), MOST_GROUPS), np.uint8)
    sizes = np.zeros(len(counts), np.int64)
    unfinished = np.arange(len(counts))
    for place in range(MOST_GROUPS):
        group = rest & ((1 << BITS) - 1)
        rest >>= BITS
        more = rest != -(group >> (BITS - 1))
        table[unfinished, place] = group + (more << BITS) + ord("0")
        sizes[unfinished] += 1
        unfinished, rest = unfinished[more], rest[more]
    text = table[np.arange(MOST_GROUPS) < sizes[:, None]].tobytes()
    ends = np.add.reduceat(sizes, starts).cumsum().tolist() if len(starts) else []
    return [text[start:end] for start, end in itertools.pairwise([0, *ends])]
