"""ROIAlign on the CPU as products of matrices.

ROIAlign averages bilinear samples on a grid of rows and columns, so that it is a product of three matrices
for each region and channel: ``rows (P, h) @ window (h, w) @ columns (w, Q)``. The gradient of the window is a
product with their transposes. torchvision interpolates sample by sample instead, and adds up gradients on one
core. Differences are those of rounding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
from detectron2.layers import ROIAlign
from torch import Tensor, nn

__all__ = ["use_fast_roi_align"]

CHUNK = 2**22  # numbers in the gradients of the windows that are computed together
STEP = 4  # cells to which windows are rounded up, so that many of them have the same size


def use_fast_roi_align(model: nn.Module) -> None:
    """Let all poolers of a model compute fast on the CPU; their arguments and names stay the same."""
    for module in model.modules():
        if type(module) is ROIAlign:
            module.__class__ = FastROIAlign


class FastROIAlign(ROIAlign):
    """detectron2's ROIAlign, which computes float32 on the CPU as products of matrices."""

    def forward(self, input: Tensor, rois: Tensor) -> Tensor:
        """Pool regions of feature maps.

        Args:
            input: (N, C, H, W).
            rois: (K, 5), the index of an image and a box x0, y0, x1, y1 in its pixels.

        Returns:
            (K, C, P, Q).
        """
        pooled: Tensor
        traced = torch.compiler.is_compiling() or torch._C._get_tracing_state()
        if traced or input.device.type != "cpu" or input.dtype != torch.float32 or rois.requires_grad:
            pooled = super().forward(input, rois)
        else:
            pooled = _RoiAlign.apply(input, rois.to(input.dtype), self)
        return pooled


class _RoiAlign(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input: Tensor, rois: Tensor, pool: FastROIAlign) -> Tensor:
        bins_high, bins_wide = pool.output_size
        rows = _weights(rois[:, 2], rois[:, 4], bins_high, input.shape[2], pool)
        columns = _weights(rois[:, 1], rois[:, 3], bins_wide, input.shape[3], pool)
        groups = list(_groups(rows, columns, input.shape[1]))
        ctx.parts = rows, columns, groups, rois[:, 0].long()
        ctx.shape, ctx.layout = input.shape, _layout(input)
        return _pool(input, *ctx.parts)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None, None]:
        if not ctx.parts[2]:
            return None, None, None  # nothing to add, as on levels without a region
        gradient = _spread(grad, ctx.shape, *ctx.parts)
        return gradient.contiguous(memory_format=ctx.layout), None, None


def _pool(input: Tensor, rows: _Axis, columns: _Axis, groups: Sequence[_Group], images: Tensor) -> Tensor:
    """Pool regions of maps (N, C, H, W): (K, C, P, Q)."""
    # windows are rounded up, and may reach beyond the map
    maps = F.pad(input, (0, STEP, 0, STEP)).permute(0, 2, 3, 1).contiguous()
    bins = (rows.matrix.shape[1], columns.matrix.shape[1])
    pooled = input.new_zeros(len(images), *bins, input.shape[1])
    for chosen, (h, w) in groups:
        y = rows.first[chosen, None, None] + torch.arange(h)[:, None]
        x = columns.first[chosen, None, None] + torch.arange(w)
        windows = maps[images[chosen, None, None], y, x]  # (n, h, w, C)
        # (n, P, h) x (n, h, w C) -> (n, P, w C)
        partly = torch.bmm(rows.matrix[chosen, :, :h], windows.flatten(2))
        # (n, 1, Q, w) x (n, P, w, C) -> (n, P, Q, C)
        pooled[chosen] = torch.matmul(columns.matrix[chosen, None, :, :w], partly.unflatten(2, (w, -1)))
    return pooled.permute(0, 3, 1, 2).contiguous()


def _spread(
    grad: Tensor,
    shape: torch.Size,
    rows: _Axis,
    columns: _Axis,
    groups: Sequence[_Group],
    images: Tensor,
) -> Tensor:
    """Spread gradients (K, C, P, Q) over maps of a shape (N, C, H, W); the transpose of ``_pool``."""
    batch, channels, height, width = shape
    of_map = grad.new_zeros(batch, height, width, channels)
    by_cell = grad.permute(0, 2, 3, 1).contiguous()
    for chosen, (h, w) in groups:
        across = columns.matrix[chosen, :, :w].transpose(1, 2)  # (n, w, Q)
        down = rows.matrix[chosen, :, :h].transpose(1, 2)  # (n, h, P)
        # (n, 1, w, Q) x (n, P, Q, C) -> (n, P, w, C)
        partly = torch.matmul(across[:, None], by_cell[chosen])
        windows = torch.bmm(down, partly.flatten(2)).view(len(chosen), h, w, channels)
        places = torch.stack([images, rows.first, columns.first], 1)[chosen]
        for window, (image, y, x) in zip(windows, places.tolist(), strict=True):
            place = of_map[image, y : y + h, x : x + w]
            place.add_(window[: place.shape[0], : place.shape[1]])
    return of_map.permute(0, 3, 1, 2)


class _Axis(NamedTuple):
    """Weights with which the bins of each region average the cells of an axis of the map.

    Attributes:
        matrix: (K, bins, longest) weights, from the first cell of each region on.
        first: (K,) index of that cell.
        length: (K,) number of cells with a weight.
    """

    matrix: Tensor
    first: Tensor
    length: Tensor


#: Indices (n,) of regions, and (height, width) in cells of their windows
_Group: TypeAlias = tuple[Tensor, tuple[int, int]]


def _weights(start: Tensor, end: Tensor, bins: int, cells: int, pool: FastROIAlign) -> _Axis:
    """The weights of an axis, as torchvision's ``roi_align`` computes samples and interpolates."""
    offset = 0.5 if pool.aligned else 0.0
    start, end = start * pool.spatial_scale - offset, end * pool.spatial_scale - offset
    extent = end - start if pool.aligned else (end - start).clamp(min=1.0)
    bin_size = extent / bins
    samples = torch.full_like(extent, pool.sampling_ratio) if pool.sampling_ratio > 0 else bin_size.ceil()
    most = max(int(samples.max()), 1) if len(samples) else 1
    sample, number = torch.arange(most, dtype=start.dtype), torch.arange(bins, dtype=start.dtype)
    per_bin = samples.clamp(min=1)[:, None, None]
    inside_bin = (sample + 0.5) * bin_size[:, None, None] / per_bin  # (K, 1, S)
    at = start[:, None, None] + number[:, None] * bin_size[:, None, None] + inside_bin  # (K, bins, S)
    used = (sample < samples[:, None, None]) & (at >= -1) & (at <= cells)
    at = at.clamp(min=0)
    low = at.long().clamp(max=cells - 1)
    high = (low + 1).clamp(max=cells - 1)
    to_high = torch.where(low == high, torch.zeros_like(at), at - low)
    share = used / per_bin
    first = torch.where(used, low, cells - 1).amin((1, 2))
    length = torch.where(used, high, 0).amax((1, 2)) - first + 1
    longest = max(int(length.max()), 1) if len(length) else 1
    longest += -longest % STEP
    matrix = start.new_zeros(len(start), bins, longest)
    for cell, weight in ((low, (1 - to_high) * share), (high, to_high * share)):
        relative = (cell - first[:, None, None]).clamp(
            0, longest - 1
        )  # those that are not used weigh nothing
        matrix.scatter_add_(2, relative, weight)
    return _Axis(matrix, first, length.clamp(min=0))


def _groups(rows: _Axis, columns: _Axis, channels: int) -> Iterator[_Group]:
    """Regions whose windows have the same rounded size, few enough to be computed together."""
    sizes = torch.stack([rows.length, columns.length], 1)
    sizes += -sizes % STEP
    for size in torch.unique(sizes, dim=0):
        h, w = size.tolist()
        if h and w:
            chosen = (sizes == size).all(1).nonzero()[:, 0]
            for part in chosen.split(max(1, CHUNK // (h * w * channels))):
                yield part, (h, w)


def _layout(x: Tensor) -> torch.memory_format:
    nhwc = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    return torch.channels_last if nhwc else torch.contiguous_format
