"""Trace programs, write them as .pt2 or .onnx files, and open such files as functions."""

from __future__ import annotations

import importlib.util
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import torch
from timm.layers import padding
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from ..errors import ConfigError
from ..utils.files import disk_errors
from ..utils.sizes import ceil_div
from ..utils.text import first_line

__all__ = ["Runner", "check_packages", "open_program", "save_program", "trace"]

#: An exported file as a function of its input
Runner: TypeAlias = Callable[[Tensor], Sequence[Tensor]]

ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
MAX_ONNX_BYTES = 1_900_000_000  # of weights; the limit of an ONNX file is 2 GB


def check_packages(suffix: str) -> None:
    """Raise ConfigError if a format needs packages that are not installed."""
    missing = [name for name in ONNX_PACKAGES if importlib.util.find_spec(name) is None]
    if suffix == ".onnx" and missing:
        raise ConfigError(f"{suffix} needs {', '.join(missing)}: pip install 'd2timm[onnx]'")


def trace(program: nn.Module, example: Tensor, dynamic: Mapping[int, int]) -> ExportedProgram:
    """Trace a program that takes one tensor.

    Args:
        program: in eval mode.
        example: the input to trace with.
        dynamic: dimension -> number of which its size can be any multiple; other dimensions have the
            example's size.

    Raises:
        ConfigError: the program cannot be traced, for example because it branches on a dynamic size.
    """
    shapes = {
        dimension: multiple * Dim(f"n{dimension}", min=1) if multiple > 1 else Dim.DYNAMIC
        for dimension, multiple in dynamic.items()
    }
    with torch.no_grad(), _integer_padding(), _quiet():
        try:
            return torch.export.export(
                program, (example,), dynamic_shapes=(shapes,) if shapes else None, strict=False
            )
        except Exception as error:  # torch raises many kinds, from any line of any model
            reason = first_line(error, with_type=True)
            if not shapes:
                raise ConfigError(f"torch.export cannot trace this model ({reason})") from error
            raise ConfigError(
                f"torch.export cannot trace this model for images of any size ({reason}); "
                "--size HxW exports it for images of one size"
            ) from error


def save_program(
    traced: ExportedProgram,
    file: Path,
    suffix: str,
    inputs: Sequence[str],
    outputs: Sequence[str],
    metadata: Mapping[str, str],
) -> None:
    """Write a traced program.

    Args:
        traced: from ``trace``.
        file: the file to write.
        suffix: the format, ``.pt2`` or ``.onnx``.
        inputs: the name of its input, for ``.onnx``.
        outputs: the names of its outputs, for ``.onnx``.
        metadata: texts, saved as extra files of ``.pt2`` or properties of ``.onnx``.

    Raises:
        ConfigError: the weights are too large for ONNX, or ONNX lacks an operation of the program.
        OSError: the file cannot be written, as on a full disk.
    """
    with _quiet():
        if suffix == ".pt2":
            buffer = io.BytesIO()  # torch's own writer ends the process if the disk is full
            torch.export.save(traced, buffer, extra_files=dict(metadata))
            with disk_errors(file):
                file.write_bytes(buffer.getbuffer())
            return
        size = sum(x.numel() * x.element_size() for x in traced.state_dict.values())
        if size > MAX_ONNX_BYTES:
            raise ConfigError(f"{size / 1e9:.1f} GB of weights: an ONNX file holds at most 2 GB; use .pt2")
        try:
            program: Any = torch.onnx.export(
                traced,
                dynamo=True,
                verbose=False,
                input_names=list(inputs),
                output_names=list(outputs),
            )
        except torch.onnx.OnnxExporterError as error:
            reason = first_line(_root_cause(error), with_type=True)
            raise ConfigError(f"this model cannot be converted to ONNX: {reason}; use .pt2") from error
        program.model.metadata_props.update(metadata)
        with disk_errors(file):
            program.save(str(file), external_data=False)


def open_program(file: Path, suffix: str) -> Runner:
    """Open a file that ``save_program`` wrote, to run on the CPU."""
    if suffix == ".pt2":
        with _quiet(), file.open("rb") as opened:
            module = torch.export.load(opened).module()

        def run(x: Tensor) -> Sequence[Tensor]:
            with torch.no_grad():
                return tuple(module(x))

        return run
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only; warnings are about sizes that are unknown before a run
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(file.read_bytes(), options, ["CPUExecutionProvider"])
    (first,) = session.get_inputs()
    return lambda x: [torch.from_numpy(output) for output in session.run(None, {first.name: x.numpy()})]


@contextmanager
def _integer_padding() -> Iterator[None]:
    """Make timm compute TensorFlow's padding with integers: torch cannot simplify fractions of symbols."""

    def same_padding(x: int, kernel_size: int, stride: int, dilation: int) -> int:
        return max((ceil_div(x, stride) - 1) * stride + (kernel_size - 1) * dilation + 1 - x, 0)

    original = padding.get_same_padding
    padding.get_same_padding = same_padding
    try:
        yield
    finally:
        padding.get_same_padding = original


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide torch's messages to its own developers."""
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


def _root_cause(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error
