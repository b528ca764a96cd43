"""Ways to compute the same training step, of which one may be faster: memory format and compilation."""

from __future__ import annotations

import importlib.util
import logging
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Ways", "apply_ways", "compiler_is_missing"]

logger = logging.getLogger(__name__)

BACKEND = "inductor"  # of torch.compile
COMPILERS = ("c++", "g++", "clang++")


@dataclass(frozen=True)
class Ways:
    """How a detector computes its steps.

    Attributes:
        channels_last: maps and weights have the memory format NHWC from the backbone to the convolutional
            heads.
        compile: ``torch.compile`` compiles backbone and neck, for images of any size.
    """

    channels_last: bool = False
    compile: bool = False

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Ways:
        """The ways that a record or a cache holds, without those that this version does not know."""
        known = {field.name for field in fields(cls)}
        return cls(**{name: bool(value) for name, value in values.items() if name in known})

    def to_dict(self) -> dict[str, bool]:
        """Return the ways as ``from_dict`` takes them."""
        return asdict(self)

    def __str__(self) -> str:
        return ", ".join(f"{name}={value}" for name, value in self.to_dict().items())


def apply_ways(model: Any, ways: Ways) -> None:
    """Let a detector compute in these ways, in place; names, shapes and values of its state stay the same.

    Args:
        model: the detector, on its device, not yet distributed.
        ways: those in which it computes from now on.
    """
    if ways.channels_last:
        model.to(memory_format=torch.channels_last)
        model.backbone.register_forward_pre_hook(_to_channels_last)
    if ways.compile:
        # one graph for all sizes: one for each would be compiled anew again and again
        model.backbone.compile(dynamic=True, backend=BACKEND)


def compiler_is_missing(device: str) -> str | None:
    """Why ``torch.compile`` is not possible on a device such as ``cpu`` or ``cuda:0``; None if it is."""
    if torch.device(device).type == "cuda":
        return None if importlib.util.find_spec("triton") else "the package triton is not installed"
    names = (os.environ["CXX"],) if os.environ.get("CXX") else COMPILERS
    if any(map(shutil.which, names)):
        return None
    return f"there is no compiler of C++ ({', '.join(names)})"


def _to_channels_last(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (inputs[0].contiguous(memory_format=torch.channels_last), *inputs[1:])
