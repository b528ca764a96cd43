"""Find the image files that annotations name, also where a tool has written another path."""

from __future__ import annotations

import functools
import os
import unicodedata
from pathlib import Path, PurePosixPath

__all__ = ["Finder"]


class Finder:
    """Images by the names that annotations give them.

    Args:
        folder: the image folder; names that are absolute paths do not need it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find(self, name: str) -> tuple[Path, bool]:
        """Find an image.

        Args:
            name: a path relative to the folder, or an absolute one.

        Returns:
            The path, and whether it is another than the annotations say: the tool has written backslashes,
            folders of its own machine, another case or another Unicode form of the name.
        """
        file = self.folder / name
        if _is_file(file):
            return file, False
        found = self._elsewhere(name)
        return (file, False) if found is None else (found, True)

    def _elsewhere(self, name: str) -> Path | None:
        """The only file whose path ends as the name does, without case; longer matches come first."""
        parts = PurePosixPath(name.replace("\\", "/")).parts
        for start in range(len(parts)):
            key = _key("/".join(parts[start:]))
            candidates = self._by_ending.get(key, [])
            if len(candidates) == 1:
                return self.folder / candidates[0]
        return None

    @functools.cached_property
    def _listing(self) -> list[str]:
        """Paths of all files below the folder, which is not searched if names are absolute."""
        if self.folder == Path("/"):
            return []
        paths = []
        for place, folders, names in os.walk(self.folder, followlinks=True):
            folders.sort()  # the same order everywhere
            visible = (name for name in names if not name.startswith("."))
            paths += [os.path.relpath(os.path.join(place, name), self.folder) for name in visible]
        return paths

    @functools.cached_property
    def _by_ending(self) -> dict[str, list[str]]:
        endings: dict[str, list[str]] = {}
        for path in self._listing:
            parts = path.split(os.sep)
            for start in range(len(parts)):
                endings.setdefault(_key("/".join(parts[start:])), []).append(path)
        return endings


def _key(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _is_file(file: Path) -> bool:
    try:
        return file.is_file()
    except (OSError, ValueError):  # a name that is too long or has a NUL
        return False
