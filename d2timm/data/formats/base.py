"""What a dataset format declares about itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..paths import Split

__all__ = ["FolderFormat"]


@dataclass(frozen=True)
class FolderFormat:
    """A format of a user's own folder, chosen by ``data.name`` and found at ``data.root``.

    Attributes:
        name: ``data.name``.
        tasks: what its annotations describe, in the names of ``d2timm.data.tasks``.
        read: brings a split into COCO's format, from the folder, ``train`` or ``val``, and what the folder is
            called in error messages.
    """

    name: str
    tasks: tuple[str, ...]
    read: Callable[[Path, str, str], Split]
