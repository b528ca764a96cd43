"""Arithmetic on image sizes, which may be symbolic while a model is exported."""

from __future__ import annotations

from typing import TypeAlias

import torch

__all__ = ["Size", "at_least", "ceil_div", "round_up", "round_up_size"]

#: (height, width) in pixels
Size: TypeAlias = tuple[int, int]


def ceil_div(value: int, divisor: int) -> int:
    """Return ``value / divisor`` rounded up; ``value >= 0``, ``divisor >= 1``."""
    return (value + divisor - 1) // divisor  # not -(-value // divisor): ONNX rounds towards zero


def round_up(value: int, multiple: int) -> int:
    """Return the smallest multiple of ``multiple`` that is >= ``value``."""
    return ceil_div(value, multiple) * multiple


def at_least(value: int, smallest: int) -> int:
    """Return the larger of two values, without a guard if an exporter knows that ``value`` is the larger."""
    if isinstance(value, torch.SymInt):
        from torch.fx.experimental.symbolic_shapes import statically_known_true  # imports SymPy

        if statically_known_true(value >= smallest):
            return value
    return max(value, smallest)


def round_up_size(size: Size, multiple: int) -> Size:
    """Return a size with height and width rounded up to a multiple."""
    return round_up(size[0], multiple), round_up(size[1], multiple)
