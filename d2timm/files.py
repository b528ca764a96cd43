"""Files that are whole or not there, and files that one process holds."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

__all__ = ["hold", "whole"]


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


def hold(file: IO[Any], alone: bool = True) -> bool:
    """Try to lock a file until it is closed; the system lets go of it at any death of the process.

    A lock of POSIX's kind, which worker processes do not inherit and network file systems know.

    Args:
        file: open, for writing if it is to be held alone.
        alone: whether no other may hold it; else only none that holds it alone.

    Returns:
        Whether it is held.
    """
    try:
        fcntl.lockf(file, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
