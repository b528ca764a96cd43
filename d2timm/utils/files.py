"""Atomic writes, file locks, the cache folder and the project's own folders."""

from __future__ import annotations

import fcntl
import glob
import os
import re
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

__all__ = [
    "PACKAGE",
    "atomic_folder",
    "atomic_write",
    "cache_root",
    "disk_errors",
    "remove_leftovers",
    "resource_folder",
    "try_lock",
]

#: Folder of the installed package
PACKAGE = Path(__file__).parents[1]
#: The name of a temporary file or folder: what it will be called, and the process that writes it
PARTIAL = re.compile(r"\.(.+)\.(\d+)@(.+)")


@contextmanager
def atomic_write(file: Path) -> Iterator[Path]:
    """Write a file so that readers see either its old content or all of the new content.

    Temporary files that earlier processes have left, because they were killed while they wrote the same file,
    are deleted.

    Yields:
        A temporary path in the folder of ``file`` to write to. It replaces ``file`` once its data is on
        the disk, and is deleted if the body raises.
    """
    partial = _partial(file)
    try:
        yield partial
        with partial.open("rb") as written:
            os.fsync(written.fileno())
        partial.replace(file)
    except BaseException:
        with suppress(OSError):
            os.truncate(partial, 0)  # a writer that has failed may still have it open, and so keep its space
        partial.unlink(missing_ok=True)
        raise


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """Write a folder that does not exist so that it appears with all of its files, as ``atomic_write`` does.

    If another process writes the same folder at the same time, that of the faster one stays.

    Yields:
        An empty temporary folder to write to.
    """
    partial = _partial(folder)
    shutil.rmtree(partial, ignore_errors=True)  # of an earlier process that had the same number
    partial.mkdir()
    try:
        yield partial
        try:
            partial.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def disk_errors(file: Path, *kinds: type[Exception]) -> Iterator[None]:
    """Raise OSError with the file, the reason and the free space if a block cannot write the file.

    Args:
        file: the file, or its temporary path.
        kinds: what a library raises instead of OSError, such as torch's RuntimeError on a full disk.
    """
    try:
        yield
    except Exception as error:
        if not isinstance(error, (OSError, *kinds)):
            raise
        partial = PARTIAL.fullmatch(file.name)
        final = file.with_name(partial[1]) if partial else file
        free = shutil.disk_usage(file.parent).free // 10**6 if file.parent.is_dir() else 0
        reason = "the disk is full or broken"
        if isinstance(error, OSError):
            reason = error.strerror or str(error)
        raise OSError(f"{final} cannot be written: {reason}; {free} MB are free") from error


def _partial(path: Path) -> Path:
    """The temporary path of this process for a file or folder; those of ended processes are deleted."""
    remove_leftovers(path.parent, path.name)
    return path.with_name(f".{path.name}.{os.getpid()}@{socket.gethostname()}")


def remove_leftovers(folder: Path, name: str | None = None) -> None:
    """Delete temporary files and folders of processes on this machine that have ended.

    Args:
        folder: the folder; it may be missing.
        name: of the file or folder that was written; None: any.
    """
    with suppress(OSError):  # another process may delete the same ones, and a file system may be read-only
        for file in folder.glob(f".{glob.escape(name or '')}*"):
            match = PARTIAL.fullmatch(file.name)
            ours = match and name in (None, match[1]) and match[3] == socket.gethostname()
            if match and ours and not _is_alive(int(match[2])):
                if file.is_dir():
                    shutil.rmtree(file, ignore_errors=True)
                else:
                    file.unlink(missing_ok=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def try_lock(file: IO[Any], exclusive: bool = True) -> bool:
    """Try to lock an open file; the lock is released when the file is closed or the process dies.

    The lock is a POSIX record lock: child processes do not inherit it, and network file systems support it.

    Args:
        file: an open file; it must be writable for an exclusive lock.
        exclusive: whether the lock excludes all other locks; a shared lock excludes exclusive ones only.

    Returns:
        Whether this process now holds the lock.
    """
    try:
        fcntl.lockf(file, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def cache_root() -> Path:
    """Return the absolute path of the cache folder, which may not exist yet.

    It is ``$D2TIMM_CACHE``, else ``$XDG_CACHE_HOME/d2timm``, else ``~/.cache/d2timm``.
    """
    default = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "d2timm")
    return Path(os.environ.get("D2TIMM_CACHE") or default).expanduser().absolute()


def resource_folder(name: str) -> Path:
    """Return the path of a folder that ships with the project, such as ``lazy_configs`` or ``conf``.

    An installed wheel has it inside the package, a checkout of the repository next to the package.
    """
    inside = PACKAGE / name
    return inside if inside.is_dir() else PACKAGE.parent / name
