"""Files that ``torch.save`` wrote: torch has a checksum of each part in them, and does not look at it."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any
from zipfile import ZipFile, is_zipfile

import torch

from ..errors import ConfigError
from .text import one_line, unreadable

__all__ = ["read_torch_file", "verify"]


def read_torch_file(file: Path, lazy: bool = False) -> Any:
    """Read a file to the CPU, without executing code.

    Args:
        file: the file.
        lazy: whether the numbers of a tensor are read from the disk only when they are used, unverified.

    Raises:
        ConfigError: the file cannot be read, because it is damaged, cut off or of another format.
    """
    zipped = is_zipfile(file)
    if not lazy:
        verify(file)
    try:
        return torch.load(file, map_location="cpu", weights_only=True, mmap=lazy and zipped)
    except Exception as error:  # a broken pickle raises errors of any type
        raise ConfigError(f"{file}: not a checkpoint, or cut off: {unreadable(error)}") from None


def verify(file: Path) -> None:
    """Raise ConfigError unless the checksum of each part of a file is right.

    Files of earlier versions of torch and of other programs have none, and are accepted.
    """
    if is_zipfile(file):
        state = file.stat()
        _verify_once(file, state.st_size, state.st_mtime_ns)


@cache
def _verify_once(file: Path, size: int, modified: int) -> None:
    """The same; size and time tell versions of the file apart, each of which is read once."""
    try:
        with ZipFile(file) as opened:
            broken = opened.testzip()
    except Exception as error:  # a broken zip file raises errors of many types
        raise ConfigError(f"{file}: damaged: {one_line(error)}") from None
    if broken:
        raise ConfigError(f"{file}: damaged: the checksum of {one_line(broken)} is wrong")
