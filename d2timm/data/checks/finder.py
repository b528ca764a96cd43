"""Find the image files that annotations name, also where a tool has written another path."""

from __future__ import annotations

import functools
import os
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath

__all__ = ["Finder", "visible_files"]

Found = tuple[Path, bool]  # an image, and whether its path is another than the annotations say


class Finder:
    """Images by the names that annotations give them.

    A tool may have written backslashes, folders of its own machine, another case or another Unicode form of a
    name. Such an image is found if it is the only file whose path ends in the same way.

    Args:
        folder: the image folder; names that are absolute paths do not need it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find_all(self, names: Sequence[str]) -> list[Found]:
        """Find the images of a dataset; a file that several names may mean belongs to its exact name only.

        Args:
            names: paths relative to the folder, or absolute ones.
        """
        found = [self.find(name) for name in names]
        meant: dict[Path, set[str]] = {}
        for name, (file, _) in zip(names, found, strict=True):
            meant.setdefault(file, set()).add(_key(name))
        return [
            (self.folder / name, False) if moved and len(meant[file]) > 1 else (file, moved)
            for name, (file, moved) in zip(names, found, strict=True)
        ]

    def find(self, name: str) -> Found:
        """Find an image; if there is none, its path is that of the annotations.

        Args:
            name: a path relative to the folder, or an absolute one.
        """
        file = self.folder / name
        if _exists(file, Path.is_file):
            return file, False
        found = self._elsewhere(PurePosixPath(_with_slashes(name)).parts)
        return (file, False) if found is None else (found, True)

    def _elsewhere(self, parts: Sequence[str]) -> Path | None:
        """The only file whose path ends as the name does; longer matches come first."""
        place = self._existing(parts)
        for start in range(len(parts)):
            candidates = self._by_ending.get(_key("/".join(parts[start:])), [])
            if len(candidates) == 1:
                return self.folder / candidates[0] if candidates[0].startswith(place) else None
        return None

    def _existing(self, parts: Sequence[str]) -> str:
        """The folder of a name as far as it exists: an image of another folder has only the same name."""
        place = ""
        for part in parts[:-1]:
            if part == "/" or not _exists(self.folder / place / part, Path.is_dir):
                break
            place += f"{part}/"
        return place

    @functools.cached_property
    def _by_ending(self) -> dict[str, list[str]]:
        """The end of a path, of any length -> paths of files below the folder."""
        endings: dict[str, list[str]] = {}
        # names that are absolute need no search, which would go through the whole disk
        for file in visible_files(self.folder) if self.folder != Path("/") else ():
            path = os.path.relpath(file, self.folder)
            parts = path.split(os.sep)
            for start in range(len(parts)):
                endings.setdefault(_key("/".join(parts[start:])), []).append(path)
        return endings


def visible_files(folder: str | Path) -> Iterator[str]:
    """Paths of all files below a folder that are not hidden; links are followed, but not in circles."""
    seen: set[str] = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if (real := os.path.realpath(place)) in seen:
            folders.clear()
            continue
        seen.add(real)
        yield from (os.path.join(place, name) for name in names if not name.startswith("."))


def _key(name: str) -> str:
    return unicodedata.normalize("NFC", _with_slashes(name)).casefold()


def _with_slashes(name: str) -> str:
    return name.strip().replace("\\", "/")


def _exists(file: Path, kind: Callable[[Path], bool]) -> bool:
    try:
        return kind(file)
    except (OSError, ValueError):  # a name that is too long or has a NUL
        return False
