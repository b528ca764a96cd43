"""Files that are whole or not there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["whole"]


@contextmanager
def whole(file: Path) -> Iterator[Path]:
    """Write a file so that whoever looks sees the old one or all of the new one.

    Yields:
        The path to write to, beside ``file``; it takes the place of ``file`` once it is on the disk.
    """
    partial = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        yield partial
        with partial.open("rb") as written:
            os.fsync(written.fileno())
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)
