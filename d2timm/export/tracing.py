"""Programs that torch has traced with sizes that it knows by name only."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from timm.layers import padding
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from ..errors import ConfigError
from ..features import ceil_div

__all__ = ["quiet", "trace"]


def trace(program: nn.Module, example: Tensor, dynamic: Mapping[int, int]) -> ExportedProgram:
    """Trace a program of one tensor.

    Args:
        program: in eval mode.
        example: what it is traced with.
        dynamic: dimension -> what its size is any multiple of; other dimensions are as in the example.

    Raises:
        ConfigError: it does what cannot be traced without knowing the sizes; the text says where.
    """
    shapes = {
        dimension: multiple * Dim(f"n{dimension}", min=1) if multiple > 1 else Dim.DYNAMIC
        for dimension, multiple in dynamic.items()
    }
    with torch.no_grad(), _whole_numbers(), quiet():
        try:
            return torch.export.export(
                program, (example,), dynamic_shapes=(shapes,) if shapes else None, strict=False
            )
        except Exception as error:  # of torch's many kinds, for any line of any model
            reason = f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:160]}"
            if not shapes:
                raise ConfigError(f"torch.export cannot follow this model ({reason})") from error
            raise ConfigError(
                f"torch.export cannot follow this model at a size that it does not know ({reason}); "
                "--size HxW exports it for images of one size"
            ) from error


@contextmanager
def _whole_numbers() -> Iterator[None]:
    """Let timm compute TensorFlow's padding in whole numbers: torch simplifies no fractions of sizes."""

    def same_padding(x: int, kernel_size: int, stride: int, dilation: int) -> int:
        return max((ceil_div(x, stride) - 1) * stride + (kernel_size - 1) * dilation + 1 - x, 0)

    original = padding.get_same_padding
    padding.get_same_padding = same_padding
    try:
        yield
    finally:
        padding.get_same_padding = original


@contextmanager
def quiet() -> Iterator[None]:
    """Keep torch's notes to its own developers off the screen."""
    noisy = [logging.getLogger(name) for name in ("torch", "torch.onnx", "onnxscript")]
    levels = [logger.level for logger in noisy]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in noisy:
            logger.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            for logger, level in zip(noisy, levels, strict=True):
                logger.setLevel(level)
