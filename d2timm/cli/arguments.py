"""Types of arguments that several commands take, and the completion of model names."""

from __future__ import annotations

import argparse
from typing import Any

__all__ = ["add_trust", "complete_models", "image_size", "number"]


def add_trust(parser: argparse.ArgumentParser) -> None:
    """Add the flag of all commands that read a config; ``app`` applies it before the command runs."""
    parser.add_argument(
        "--trust",
        action="append",
        metavar="PACKAGE",
        help="let the config name classes of a package of yours, which is code that runs; repeatable",
    )


def number(text: str) -> int:
    """Parse ``12M``, ``300k``, ``1.1B`` or digits."""
    scale = {"k": 1e3, "m": 1e6, "b": 1e9}.get(text[-1:].lower(), 0)
    return int(float(text[:-1]) * scale) if scale else int(float(text))


def image_size(text: str) -> tuple[int, int]:
    """Parse ``512`` or ``800x1333`` as (height, width) in pixels, each >= 32."""
    sides = [int(side) for side in text.lower().split("x")]
    if len(sides) > 2 or min(sides) < 32:
        raise ValueError(text)
    return sides[0], sides[-1]


def complete_models(**_: Any) -> list[str]:
    """The names of all timm models, for the completion of an argument."""
    from ..backbone.zoo_table import read_rows

    return [row["model_name"] for row in read_rows()]
