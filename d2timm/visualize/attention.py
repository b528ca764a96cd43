"""Sheets of where a transformer looks: for each block, how much attention each position receives.

    attention (B, heads, queries, keys), rows of which sum to 1
        -> mean over heads and queries, times the number of keys: 1 is what uniform attention gives
        -> windows put together, shifts undone, class and register tokens left out -> (h, w)

timm's hooks take it from the modules by which timm's ``AttentionExtract`` finds it. The square of the number
of positions is reduced inside the hooks, block by block.
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
from ..utils.sizes import Size
from .image_grid import Scale, Tile, write_grid

__all__ = ["Attention", "attention_of", "draw_attention"]

MOST_BYTES = 2 << 30  # of the attention of a block
FLOAT = 4  # bytes
TOO_LARGE = "at this size of image the attention takes too much memory"
MIXED = "its heads are mixed, so that the attention is no share of a whole"
NO_GRID = "the attention is not between positions of one grid"
COLUMNS = 5
MOST_NAMES = 3  # of blocks, in a line
TOLERANCE = 0.05  # of the sum of a row, in half precision
LEAST_RATIO = 1.05  # colours span at least so much below and above uniform attention


@dataclass(frozen=True)
class Attention:
    """The attention of a backbone's blocks.

    Attributes:
        maps: name of a block -> (h, w), how much attention each position receives: 1 is uniform.
        left_out: name of a block -> why it has no map.
    """

    maps: dict[str, Tensor]
    left_out: dict[str, str]

    def told(self) -> list[str]:
        """Lines about what has no map."""
        if not self.maps and not self.left_out:
            return ["attention: this backbone has none that timm's hooks find"]
        lines = []
        for reason in dict.fromkeys(self.left_out.values()):
            names = [name for name, why in self.left_out.items() if why == reason]
            told = ", ".join(names[:MOST_NAMES]) + (", …" if len(names) > MOST_NAMES else "")
            lines.append(f"attention: no map of {told}: {reason}")
        return lines


def attention_of(backbone: TimmBackbone, x: Tensor, size: Sequence[int]) -> Attention:
    """Run a backbone, and take the attention of its blocks.

    Args:
        backbone: in eval mode.
        x: (1, C, H, W), what it is given.
        size: (height, width) of the image in it; what is right of and below it is padding.
    """
    with torch.no_grad():
        model, images, extent = backbone.as_run(x)
        names = [
            name
            for name, _ in model.named_modules()
            if any(fnmatch.fnmatch(name, pattern) for pattern in AttentionExtract.default_module_names)
        ]
        with _hooked(model, names) as hooks:
            extract(model, images, backbone.out_indices)
    received: dict[str, Tensor] = hooks.get_output(images.device)
    grids = _grids(backbone, (images.shape[-2], images.shape[-1]))
    prefix = getattr(model, "num_prefix_tokens", 0)
    maps, left_out = {}, {}
    for name in names:
        block = _Block(model, name, hooks.shapes.get(name))
        found = block.place(received[name].cpu(), prefix, grids) if name in received else None
        if found is not None:
            cell = (extent[0] / found.shape[0], extent[1] / found.shape[1])
            height, width = (math.ceil(side / c) for side, c in zip(size, cell, strict=True))
            maps[block.name] = found[:height, :width]
        else:
            reasons = ((TOO_LARGE, hooks.large), (MIXED, hooks.mixed))
            left_out[block.name] = next((why for why, which in reasons if name in which), NO_GRID)
    return Attention(maps, left_out)


class _Received(FeatureHooks):
    """timm's hooks, which keep of an attention what each key receives: (windows, keys).

    Attributes:
        heads: of each.
        shapes: of what the block of each is given.
        positions: how many there may be in what the attention of each is given.
        large: whose attention would take too much memory, and is not made.
        mixed: whose rows do not sum to 1, because heads are mixed after the softmax, as CaiT's are.
    """

    def __init__(self, names: Sequence[str], model: nn.Module) -> None:
        super().__init__(names, model.named_modules())
        self.heads = {name: getattr(_owners(model, name)[0], "num_heads", 1) for name in names}
        self.shapes: dict[str, torch.Size] = {}
        self.positions: dict[str, set[int]] = {}
        self.large: set[str] = set()
        self.mixed: set[str] = set()

    def _collect_output_hook(self, hook_id: str, *args: Any) -> None:
        attention = args[-1]
        if attention.dim() == 3 and not attention.shape[0] % self.heads[hook_id]:
            # heads are beside windows, as in SAM's
            attention = attention.unflatten(0, (-1, self.heads[hook_id]))
        if attention.dim() >= 4:
            keys = attention.shape[-1]
            received = attention.float().mean(dim=(-3, -2)) * keys
            if received.numel() // keys * attention.shape[-2] not in self.positions[hook_id]:
                return  # queries are channels
            if abs(float(received.mean()) - 1) < TOLERANCE:
                self._feature_outputs[attention.device][hook_id] = received.reshape(-1, keys)
            else:
                self.mixed.add(hook_id)


@contextmanager
def _hooked(model: nn.Module, names: Sequence[str]) -> Iterator[_Received]:
    """Let attention be computed where it can be seen: fused kernels do not show it."""
    hooks = _Received(names, model)
    handles, fused = list(hooks._handles), {}
    for name in names:
        module, block = _owners(model, name)
        if hasattr(module, "fused_attn"):
            fused[module] = module.fused_attn

        def note(_: nn.Module, inputs: Any, name: str = name) -> None:
            if inputs:
                hooks.shapes[name] = inputs[0].shape

        def choose(module: nn.Module, inputs: Any, name: str = name) -> None:
            shape = inputs[0].shape if inputs else hooks.shapes[name]
            # channels last, or first
            hooks.positions[name] = {shape.numel() // shape[-1], shape.numel() // shape[1]}
            tokens = math.prod(shape[1:-1])
            needed = shape[0] * hooks.heads[name] * tokens**2 * FLOAT
            if needed > MOST_BYTES and hasattr(module, "fused_attn"):
                hooks.large.add(name)
            elif hasattr(module, "fused_attn"):
                setattr(module, "fused_attn", False)  # noqa: B010 - what a module holds is typed a tensor

        handles += [block.register_forward_pre_hook(note), module.register_forward_pre_hook(choose)]
    try:
        yield hooks
    finally:
        for handle in handles:
            handle.remove()
        for module, value in fused.items():
            setattr(module, "fused_attn", value)  # noqa: B010


def _owners(model: nn.Module, name: str) -> tuple[nn.Module, nn.Module]:
    """The attention module that has a dropout, and the block that has this."""
    attention = name.rpartition(".")[0]
    return model.get_submodule(attention), model.get_submodule(attention.rpartition(".")[0])


def _grids(backbone: TimmBackbone, size: Size) -> list[Size]:
    """Grids that positions may lie on, by the strides of the features and by powers of two."""
    strides = {float(feature.stride) for feature in backbone.spec.features} | {2.0**k for k in range(8)}
    height, width = size
    return [
        (rounded(height / stride), rounded(width / stride))
        for stride in sorted(strides)
        for rounded in (math.ceil, math.floor)  # keys that were made fewer leave out what is left over
    ]


class _Block:
    """A block, as it puts positions into windows.

    Args:
        model: that it is of.
        name: of its attention's dropout.
        shape: of what it is given; None: it was not run.
    """

    def __init__(self, model: nn.Module, name: str, shape: torch.Size | None) -> None:
        self.name = name.rpartition(".")[0].rpartition(".")[0]
        block = _owners(model, name)[1]
        self.window = _pair(getattr(block, "window_size", 0))
        self.shift = _pair(getattr(block, "shift_size", 0))
        self.pads_first = isinstance(block, PaddedThenShifted)
        # channels last, as blocks with windows have them, or first
        self.sides = [tuple(shape[1:3]), tuple(shape[2:4])] if shape is not None and len(shape) == 4 else []

    def place(self, received: Tensor, prefix: int, grids: Sequence[Size]) -> Tensor | None:
        """Put what keys receive where they are.

        Args:
            received: (windows, keys).
            prefix: keys before those of positions.
            grids: that there may be.

        Returns:
            (h, w), or None where the keys are no positions.
        """
        windows, keys = received.shape
        if windows == 1:
            for grid in (*self.sides, *grids):
                if math.prod(grid) == keys - prefix:
                    return received[0, prefix:].reshape(grid)
        if not self.sides or not all(self.window) or math.prod(self.window) != keys:
            return None
        (height, width), (high, wide) = self.sides[0], self.window
        rows, columns = -(-height // high), -(-width // wide)
        if rows * columns != windows:
            return None
        together = (
            received.view(rows, columns, high, wide).transpose(1, 2).reshape(rows * high, columns * wide)
        )
        if self.pads_first:
            return together.roll(self.shift, dims=(0, 1))[:height, :width]
        return together[:height, :width].roll(self.shift, dims=(0, 1))


def _pair(value: Any) -> Size:
    return (value[0], value[1]) if isinstance(value, Sequence) else (int(value), int(value))


def draw_attention(file: Path, image: Tile, attention: Attention) -> None:
    """Write a sheet: the image and a map for each block.

    Args:
        file: the PNG to write.
        image: what ``image_tile`` gives.
        attention: with at least one map.
    """
    ratios = torch.cat([found.flatten() for found in attention.maps.values()]).clamp(min=1e-6)
    most = max(float(torch.quantile(ratios.log().abs()[: 1 << 24], 0.99).exp()), LEAST_RATIO)
    scale = Scale("attention received (1: uniform)", "RdBu_r", LogNorm(1 / most, most))
    tiles = [image]
    for name, found in attention.maps.items():
        span = f"{found.min():.2f}–{found.max():.2f}"
        tiles.append(Tile(f"{name}: {found.shape[0]}×{found.shape[1]}, {span}", found.numpy()))
    write_grid(file, [tiles[start : start + COLUMNS] for start in range(0, len(tiles), COLUMNS)], scale)
