"""Traced programs as files, and files as functions."""

from __future__ import annotations

import importlib.util
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
from ..utils.sizes import ceil_div

__all__ = ["Runner", "check_packages", "open_program", "quiet", "save_program", "trace"]


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


#: A file as a function of a tensor
Runner: TypeAlias = Callable[[Tensor], Sequence[Tensor]]

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
MOST_BYTES = 1_900_000_000  # of weights: a file of ONNX holds 2 GB


def check_packages(suffix: str) -> None:
    """Raise ConfigError if a format needs a package that is not installed."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if suffix == ".onnx" and missing:
        raise ConfigError(f"{suffix} needs {', '.join(missing)}: pip install 'd2timm[onnx]'")


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
        traced: with one tensor as its input.
        file: to write.
        suffix: the format, ``.pt2`` or ``.onnx``.
        inputs: the name of its input.
        outputs: names of its outputs.
        metadata: texts, extra files of .pt2 and properties of .onnx.

    Raises:
        ConfigError: it is too large, or the format lacks an operation that it uses.
    """
    with quiet():
        if suffix == ".pt2":
            with file.open("wb") as opened:
                torch.export.save(traced, opened, extra_files=dict(metadata))
            return
        size = sum(x.numel() * x.element_size() for x in traced.state_dict.values())
        if size > MOST_BYTES:
            raise ConfigError(f"{size / 1e9:.1f} GB of weights: a file of ONNX holds 2 GB; use .pt2")
        try:
            program: Any = torch.onnx.export(
                traced,
                dynamo=True,
                verbose=False,
                input_names=list(inputs),
                output_names=list(outputs),
            )
        except torch.onnx.OnnxExporterError as error:
            raise ConfigError(f"this model has no form in ONNX: {_reason(error)}; use .pt2") from error
        program.model.metadata_props.update(metadata)
        program.save(str(file), external_data=False)


def open_program(file: Path, suffix: str) -> Runner:
    """Read a file that ``save_program`` wrote, on the CPU."""
    if suffix == ".pt2":
        with quiet(), file.open("rb") as opened:
            module = torch.export.load(opened).module()

        def run(x: Tensor) -> Sequence[Tensor]:
            with torch.no_grad():
                return tuple(module(x))

        return run
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors; warnings are of sizes that are known only when it runs
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(file.read_bytes(), options, ["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    return lambda x: [torch.from_numpy(found) for found in session.run(None, {given.name: x.numpy()})]


def _reason(error: BaseException) -> str:
    """The first line of what lies at the root of an error."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:200]}"
