"""Files of safetensors, with a checksum: the format itself would load damaged numbers without a word."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..errors import ConfigError
from .files import disk_errors
from .text import one_line

__all__ = ["read_safetensors", "write_safetensors"]

#: Key of the metadata with the checksum of all numbers and of the other metadata
CHECKSUM = "crc32"


def write_safetensors(weights: Mapping[str, Tensor], file: Path, metadata: Mapping[str, str]) -> None:
    """Write weights and metadata.

    Args:
        weights: name -> tensor, on any device.
        file: its folder exists.
        metadata: what readers find in the file, beside ``format`` and the checksum.

    Raises:
        OSError: the file cannot be written, as on a full disk.
    """
    # copies, because the format refuses tensors that share memory
    own = {name: value.detach().contiguous().clone() for name, value in weights.items()}
    further = {"format": "pt", **metadata}
    with disk_errors(file, SafetensorError):
        save_file(own, file, {**further, CHECKSUM: _checksum(own, further)})


def read_safetensors(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read weights, on the CPU, and metadata; files of other programs have no checksum, and are accepted.

    Raises:
        ConfigError: the file is of another format, cut off or damaged.
    """
    try:
        with safe_open(file, framework="pt") as opened:
            metadata: dict[str, str] = opened.metadata() or {}
        weights: dict[str, Tensor] = load_file(file)
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"{file} is not a valid .safetensors file ({one_line(error)})") from None
    expected = metadata.pop(CHECKSUM, None)
    if expected is not None and expected != _checksum(weights, metadata):
        raise ConfigError(f"{file}: damaged: its checksum is wrong")
    return weights, metadata


def _checksum(weights: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    value = zlib.crc32(repr(sorted(metadata.items())).encode())
    for name, tensor in sorted(weights.items()):
        value = zlib.crc32(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode(), value)
        value = zlib.crc32(tensor.cpu().reshape(-1).view(torch.uint8).numpy().data, value)
    return f"{value:08x}"
