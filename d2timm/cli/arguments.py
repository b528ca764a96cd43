"""Types of arguments that several commands take, and completion of model names."""

from __future__ import annotations

from typing import Any

__all__ = ["complete_models", "image_size", "number"]


def number(text: str) -> int:
    """``12M``, ``300k``, ``1.1B`` or digits."""
    scale = {"k": 1e3, "m": 1e6, "b": 1e9}.get(text[-1:].lower(), 0)
    return int(float(text[:-1]) * scale) if scale else int(float(text))


def image_size(text: str) -> tuple[int, int]:
    """``512`` or ``800x1333``: height and width in pixels, each >= 32."""
    sides = [int(side) for side in text.lower().split("x")]
    if len(sides) > 2 or min(sides) < 32:
        raise ValueError(text)
    return sides[0], sides[-1]


def complete_models(**_: Any) -> list[str]:
    """Names of all models of the zoo table."""
    from ..backbone.zoo_table import read_rows

    return [row["model_name"] for row in read_rows()]
