"""Arithmetic of image sizes, also of sizes that an exporter knows by name only."""

from __future__ import annotations

from typing import TypeAlias

import torch
from torch.fx.experimental.symbolic_shapes import statically_known_true

__all__ = ["Size", "at_least", "ceil_div", "round_up", "round_up_size"]

#: (height, width) in pixels
Size: TypeAlias = tuple[int, int]


def ceil_div(value: int, divisor: int) -> int:
    """A quotient rounded up; ``value`` >= 0."""
    return (value + divisor - 1) // divisor  # not -(-value // divisor): ONNX rounds towards zero


def round_up(value: int, multiple: int) -> int:
    """The smallest multiple of ``multiple`` that is not below ``value``."""
    return ceil_div(value, multiple) * multiple


def at_least(value: int, smallest: int) -> int:
    """The larger of two values; no guard is added where an exporter knows that it is the first."""
    if isinstance(value, torch.SymInt) and statically_known_true(value >= smallest):
        return value
    return max(value, smallest)


def round_up_size(size: Size, multiple: int) -> Size:
    """Both sides of a size rounded up to a multiple."""
    return round_up(size[0], multiple), round_up(size[1], multiple)
