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
from torch.nn import functional as F

from ..utils.sizes import ceil_div, round_up

__all__ = ["Ways", "apply_ways", "compiler_is_missing"]

logger = logging.getLogger(__name__)

BACKEND = "inductor"  # of torch.compile
COMPILERS = ("c++", "g++", "clang++")
SIDES = 5  # to which images are padded, for models that are compiled for each size
MOST_GRAPHS = 2 * SIDES**2  # in training and in evaluation


@dataclass(frozen=True)
class Ways:
    """How a detector computes its steps.

    Attributes:
        channels_last: maps and weights have the memory format NHWC from the backbone to the convolutional
            heads.
        compile: ``torch.compile`` compiles backbone and neck, for images of any size or of a few sizes.
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


def apply_ways(model: Any, ways: Ways, longest: int) -> None:
    """Let a detector compute in these ways, in place; names, shapes and values of its state stay the same.

    Args:
        model: the detector, on its device, not yet distributed.
        ways: those in which it computes from now on.
        longest: the longest side of its images in pixels.
    """
    backbone = model.backbone
    if ways.channels_last:
        model.to(memory_format=torch.channels_last)
        backbone.register_forward_pre_hook(_to_channels_last)
    if ways.compile:
        # timm's Kron lifts the limit, after which nothing is compiled any more
        torch._dynamo.config.recompile_limit = MOST_GRAPHS
        per_size = _computes_per_size(backbone.bottom_up)
        backbone.compile(dynamic=not per_size, backend=BACKEND)
        if per_size and not backbone.padding_constraints.get("square_size"):
            step = round_up(ceil_div(longest, SIDES), backbone.size_divisibility or 1)
            backbone._compiled_call_impl = _Padding(backbone, step)


def _computes_per_size(bottom_up: Any) -> bool:
    """Whether a ``TimmBackbone`` is another graph for each image size: embeddings follow it, or twins do."""
    spec = getattr(bottom_up, "spec", None)
    if spec is None:  # another backbone
        return False
    dynamic = (getattr(module, "dynamic_img_size", False) for module in bottom_up.model.modules())
    return bool(spec.input_spec.multisize or dict(spec.kwargs).get("dynamic_img_size") or any(dynamic))


class _Padding:
    """Calls a compiled backbone with images that it pads to few sizes, and crops its maps.

    As for images that are padded to the largest of their batch, this changes features next to the padding.

    Args:
        backbone: the backbone.
        step: sides are padded to multiples of this many pixels.
    """

    def __init__(self, backbone: Any, step: int) -> None:
        self.compiled, self.step = backbone._compiled_call_impl, step
        self.strides = {name: shape.stride for name, shape in backbone.output_shape().items()}

    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        height, width = images.shape[-2:]
        padding = (0, round_up(width, self.step) - width, 0, round_up(height, self.step) - height)
        maps: dict[str, Tensor] = self.compiled(F.pad(images, padding))
        return {
            name: x[..., : ceil_div(height, self.strides[name]), : ceil_div(width, self.strides[name])]
            for name, x in maps.items()
        }


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
