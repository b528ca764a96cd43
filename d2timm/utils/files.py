"""Files that are complete or absent, files that one process locks, and the folders of the package."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

__all__ = ["atomic_write", "cache_root", "resource_folder", "try_lock"]

PACKAGE = Path(__file__).parents[1]


@contextmanager
def atomic_write(file: Path) -> Iterator[Path]:
    """Write a file so that a reader sees either the old content or all of the new one.

    Yields:
        The path to write to, in the folder of ``file``; it replaces ``file`` once it is on the disk.
    """
    partial = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        yield partial
        with partial.open("rb") as written:
            os.fsync(written.fileno())
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


def try_lock(file: IO[Any], exclusive: bool = True) -> bool:
    """Try to lock a file until it is closed; the system releases the lock when the process dies.

    It is a POSIX lock, which worker processes do not inherit and network file systems support.

    Args:
        file: open, for writing if the lock is exclusive.
        exclusive: whether no other process may hold a lock; otherwise only no exclusive one.

    Returns:
        Whether this process holds the lock.
    """
    try:
        fcntl.lockf(file, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def cache_root() -> Path:
    """``$D2TIMM_CACHE``, else ``$XDG_CACHE_HOME/d2timm``, else ``~/.cache/d2timm``; it may not exist yet."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "d2timm")
    return Path(os.environ.get("D2TIMM_CACHE") or default).expanduser().absolute()


def resource_folder(name: str) -> Path:
    """A folder of the project's own files, such as ``lazy_configs`` or ``conf``.

    A wheel has it inside the package, the repository next to the package.
    """
    inside = PACKAGE / name
    return inside if inside.is_dir() else PACKAGE.parent / name
