"""The declaration of a dataset format."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..paths import Split

__all__ = ["FolderFormat"]


@dataclass(frozen=True)
class FolderFormat:
    """A format of a user's own folder, selected by ``data.name`` and read from ``data.root``.

    Attributes:
        name: ``data.name``.
        tasks: the tasks that its annotations describe, in the names of ``d2timm.data.tasks``.
        read: converts a split to COCO's format; called with the folder, ``train`` or ``val``, and the name of
            the folder in error messages.
    """

    name: str
    tasks: tuple[str, ...]
    read: Callable[[Path, str, str], Split]
