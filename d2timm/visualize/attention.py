"""Draw the attention of a transformer: for each block, how much attention each position receives.

    attention (B, heads, queries, keys), whose rows sum to 1
        -> mean over heads and queries, times the number of keys: 1 is uniform attention
        -> windows joined, shifts undone, class and register tokens dropped -> (h, w)

timm's hooks take it from the modules that timm's ``AttentionExtract`` selects. They reduce it block by block,
because its size grows with the square of the number of positions.
"""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from matplotlib.colors import LogNorm
from timm.models import FeatureHooks
from timm.utils import AttentionExtract
from torch import Tensor, nn

from ..backbone.blocks import PaddedThenShifted
from ..backbone.spec import extract
from ..backbone.timm_backbone import TimmBackbone
from ..utils.sizes import Size, ceil_div
from .image_grid import Scale, Tile, write_grid

__all__ = ["Attention", "attention_of", "draw_attention"]

MAX_BYTES = 2 << 30  # of the attention of a block
FLOAT_BYTES = 4
COLUMNS = 5  # of tiles in the grid
MAX_NAMES = 3  # of blocks in a note
TOLERANCE = 0.05  # of the mean sum of a row, for half precision
MIN_RATIO = 1.05  # the colour scale spans at least this factor below and above uniform attention

# Reasons why a block has no map
TOO_LARGE = "at this image size the attention takes too much memory"
MIXED = "its heads are mixed after the softmax, so its rows do not sum to 1"
NO_GRID = "the attention is not between positions of one grid"


@dataclass(frozen=True)
class Attention:
    """The attention of a backbone's blocks.

    Attributes:
        maps: block name -> (h, w), the attention that each position receives; 1 is uniform.
        left_out: block name -> the reason why it has no map.
    """

    maps: dict[str, Tensor]
    left_out: dict[str, str]

    def notes(self) -> list[str]:
        """One line for each reason why maps are missing."""
        if not self.maps and not self.left_out:
            return ["attention: timm's hooks find none in this backbone"]
        lines = []
        for reason in dict.fromkeys(self.left_out.values()):
            names = [name for name, why in self.left_out.items() if why == reason]
            shown = ", ".join(names[:MAX_NAMES]) + (", …" if len(names) > MAX_NAMES else "")
            lines.append(f"attention: no map of {shown}: {reason}")
        return lines


def attention_of(backbone: TimmBackbone, x: Tensor, size: Sequence[int]) -> Attention:
    """Run a backbone and collect the attention of its blocks.

    Args:
        backbone: in eval mode.
        x: (1, C, H, W), its input.
        size: (height, width) of the image at the top left of ``x``; the rest is padding.
    """
    with torch.no_grad():
        model, images, extent = backbone.prepare(x)
        names = [
            name
            for name, _ in model.named_modules()
            if any(fnmatch.fnmatch(name, pattern) for pattern in AttentionExtract.default_module_names)
        ]
        with _hooked(model, names) as hooks:
            extract(model, images, backbone.out_indices)
    received: dict[str, Tensor] = hooks.get_output(images.device)
    grids = _candidate_grids(backbone, (images.shape[-2], images.shape[-1]))
    prefix = getattr(model, "num_prefix_tokens", 0)
    maps, left_out = {}, {}
    for name in names:
        block = _BlockLayout(model, name, hooks.shapes.get(name))
        placed = block.arrange(received[name].cpu(), prefix, grids) if name in received else None
        if placed is not None:
            cell = (extent[0] / placed.shape[0], extent[1] / placed.shape[1])
            height, width = (math.ceil(side / c) for side, c in zip(size, cell, strict=True))
            maps[block.name] = placed[:height, :width]
        else:
            reasons = ((TOO_LARGE, hooks.too_large), (MIXED, hooks.mixed))
            left_out[block.name] = next((reason for reason, blocks in reasons if name in blocks), NO_GRID)
    return Attention(maps, left_out)


class _ReceivedAttention(FeatureHooks):
    """timm's hooks, reduced to the attention that each key receives: (windows, keys).

    All attributes are keyed by, or contain, names of attention dropouts.

    Attributes:
        heads: number of heads.
        shapes: shape of the block's input.
        positions: the numbers of positions that the attention's input may have: channels last, or first.
        too_large: attention that would take too much memory and is therefore not computed.
        mixed: attention whose rows do not sum to 1, because heads are mixed after the softmax, as in CaiT.
    """

    def __init__(self, names: Sequence[str], model: nn.Module) -> None:
        super().__init__(names, model.named_modules())
        self.heads = {name: getattr(_owners(model, name)[0], "num_heads", 1) for name in names}
        self.shapes: dict[str, torch.Size] = {}
        self.positions: dict[str, set[int]] = {}
        self.too_large: set[str] = set()
        self.mixed: set[str] = set()

    def _collect_output_hook(self, hook_id: str, *args: Any) -> None:
        attention = args[-1]
        if attention.dim() == 3 and not attention.shape[0] % self.heads[hook_id]:
            # windows and heads share a dimension, as in SAM
            attention = attention.unflatten(0, (-1, self.heads[hook_id]))
        if attention.dim() < 4:
            return
        keys = attention.shape[-1]
        received = attention.float().mean(dim=(-3, -2)) * keys
        if received.numel() // keys * attention.shape[-2] not in self.positions[hook_id]:
            return  # queries are channels
        if abs(float(received.mean()) - 1) < TOLERANCE:
            self._feature_outputs[attention.device][hook_id] = received.reshape(-1, keys)
        else:
            self.mixed.add(hook_id)


@contextmanager
def _hooked(model: nn.Module, names: Sequence[str]) -> Iterator[_ReceivedAttention]:
    """Hook the attention of a model, and switch off fused kernels, which do not expose it."""
    hooks = _ReceivedAttention(names, model)
    handles, fused = list(hooks._handles), {}
    for name in names:
        module, block = _owners(model, name)
        if hasattr(module, "fused_attn"):
            fused[module] = module.fused_attn

        def record_shape(_: nn.Module, inputs: Any, name: str = name) -> None:
            if inputs:
                hooks.shapes[name] = inputs[0].shape

        def unfuse(module: nn.Module, inputs: Any, name: str = name) -> None:
            shape = inputs[0].shape if inputs else hooks.shapes[name]
            hooks.positions[name] = {shape.numel() // shape[-1], shape.numel() // shape[1]}
            tokens = math.prod(shape[1:-1])
            needed = shape[0] * hooks.heads[name] * tokens**2 * FLOAT_BYTES
            if needed > MAX_BYTES and hasattr(module, "fused_attn"):
                hooks.too_large.add(name)
            elif hasattr(module, "fused_attn"):
                setattr(module, "fused_attn", False)  # noqa: B010 - mypy takes attributes of modules for tensors

        handles += [block.register_forward_pre_hook(record_shape), module.register_forward_pre_hook(unfuse)]
    try:
        yield hooks
    finally:
        for handle in handles:
            handle.remove()
        for module, value in fused.items():
            setattr(module, "fused_attn", value)  # noqa: B010


def _owners(model: nn.Module, name: str) -> tuple[nn.Module, nn.Module]:
    """The attention module that contains a dropout, and the block that contains the attention."""
    attention = name.rpartition(".")[0]
    return model.get_submodule(attention), model.get_submodule(attention.rpartition(".")[0])


def _candidate_grids(backbone: TimmBackbone, size: Size) -> list[Size]:
    """Grids of positions to try: the input size divided by strides of features and by powers of two."""
    strides = {float(feature.stride) for feature in backbone.spec.features} | {2.0**k for k in range(8)}
    height, width = size
    return [
        (rounded(height / stride), rounded(width / stride))
        for stride in sorted(strides)
        for rounded in (math.ceil, math.floor)  # reduced keys drop the remainder
    ]


class _BlockLayout:
    """How a block splits positions into windows.

    Args:
        model: the timm model.
        name: name of the dropout in the block's attention.
        shape: shape of the block's input; None if the block did not run.
    """

    def __init__(self, model: nn.Module, name: str, shape: torch.Size | None) -> None:
        self.name = name.rpartition(".")[0].rpartition(".")[0]
        block = _owners(model, name)[1]
        self.window = _pair(getattr(block, "window_size", 0))
        self.shift = _pair(getattr(block, "shift_size", 0))
        self.pads_first = isinstance(block, PaddedThenShifted)
        # channels last, as in blocks with windows, or first
        self.sides = [tuple(shape[1:3]), tuple(shape[2:4])] if shape is not None and len(shape) == 4 else []

    def arrange(self, received: Tensor, prefix: int, grids: Sequence[Size]) -> Tensor | None:
        """Arrange the attention that keys receive as a map.

        Args:
            received: (windows, keys).
            prefix: number of keys before the positions: class and register tokens.
            grids: possible sizes of the map.

        Returns:
            (h, w), or None if the keys are not positions of one grid.
        """
        windows, keys = received.shape
        if windows == 1:
            for grid in (*self.sides, *grids):
                if math.prod(grid) == keys - prefix:
                    return received[0, prefix:].reshape(grid)
        if not self.sides or not all(self.window) or math.prod(self.window) != keys:
            return None
        (height, width), (high, wide) = self.sides[0], self.window
        rows, columns = ceil_div(height, high), ceil_div(width, wide)
        if rows * columns != windows:
            return None
        joined = received.view(rows, columns, high, wide).transpose(1, 2).reshape(rows * high, columns * wide)
        if self.pads_first:
            return joined.roll(self.shift, dims=(0, 1))[:height, :width]
        return joined[:height, :width].roll(self.shift, dims=(0, 1))


def _pair(value: Any) -> Size:
    return (value[0], value[1]) if isinstance(value, Sequence) else (int(value), int(value))


def draw_attention(file: Path, image: Tile, attention: Attention) -> None:
    """Draw an image and the attention map of each block as a grid.

    Args:
        file: the PNG to write.
        image: from ``image_tile``.
        attention: with at least one map.
    """
    ratios = torch.cat([values.flatten() for values in attention.maps.values()]).clamp(min=1e-6)
    limit = max(float(torch.quantile(ratios.log().abs()[: 1 << 24], 0.99).exp()), MIN_RATIO)
    scale = Scale("attention received (1: uniform)", "RdBu_r", LogNorm(1 / limit, limit))
    tiles = [image]
    for name, values in attention.maps.items():
        span = f"{values.min():.2f}–{values.max():.2f}"
        tiles.append(Tile(f"{name}: {values.shape[0]}×{values.shape[1]}, {span}", values.numpy()))
    write_grid(file, [tiles[start : start + COLUMNS] for start in range(0, len(tiles), COLUMNS)], scale)
