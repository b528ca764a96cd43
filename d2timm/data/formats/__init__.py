"""Annotation formats. A module that defines ``FORMAT`` adds a format for a user's own folder."""

from __future__ import annotations

import functools
import pkgutil
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

from ...errors import ConfigError
from .base import FolderFormat

__all__ = ["FolderFormat", "folder_formats", "recognize"]


@functools.cache
def folder_formats() -> Mapping[str, FolderFormat]:
    """Map ``data.name`` to the format, for every module of this package that defines ``FORMAT``."""
    modules = (import_module(f"{__name__}.{info.name}") for info in pkgutil.iter_modules(__path__))
    formats = (module.FORMAT for module in modules if hasattr(module, "FORMAT"))
    return {declared.name: declared for declared in formats}


def recognize(root: Path) -> FolderFormat:
    """The only format that a folder or file has.

    Args:
        root: the value of ``data.root``.

    Raises:
        ConfigError: it does not exist, or has no known format, or several.
    """
    if not root.exists():
        raise ConfigError(f"data.root={root}: no such file or folder")
    found = [declared for declared in folder_formats().values() if declared.recognize(root)]
    if len(found) == 1:
        return found[0]
    if found:
        names = " or ".join(declared.name for declared in found)
        raise ConfigError(f"data.root={root} has annotations in several formats: set data.name={names}")
    known = ", ".join(sorted(folder_formats()))
    raise ConfigError(f"data.root={root} has annotations in no known format: {known}")
