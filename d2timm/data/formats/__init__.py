"""Annotation formats. A module that defines ``FORMAT`` adds a format for a user's own folder."""

from __future__ import annotations

import functools
import pkgutil
from collections.abc import Mapping
from importlib import import_module

from .base import FolderFormat

__all__ = ["FolderFormat", "folder_formats"]


@functools.cache
def folder_formats() -> Mapping[str, FolderFormat]:
    """Map ``data.name`` to the format, for every module of this package that defines ``FORMAT``."""
    modules = (import_module(f"{__name__}.{info.name}") for info in pkgutil.iter_modules(__path__))
    formats = (module.FORMAT for module in modules if hasattr(module, "FORMAT"))
    return {declared.name: declared for declared in formats}
