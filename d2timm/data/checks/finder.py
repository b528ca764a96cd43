"""Find the image files that annotations name, also where a tool has written another path."""

from __future__ import annotations

import functools
import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

__all__ = ["Finder", "is_within", "visible_files"]

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
        """Find the images of a dataset; a file that several of the names may mean has to have its exact name.

        Args:
            names: paths relative to the folder, or absolute ones.
        """
        found = [self._find(name) for name in names]
        different = set(map(_key, names)) if any(ending for _, ending in found) else set[str]()
        meant = Counter(ending for name in different for ending in _endings(name))
        return [
            (file, bool(ending)) if meant[ending] <= 1 else (self.folder / name, False)
            for name, (file, ending) in zip(names, found, strict=True)
        ]

    def find(self, name: str) -> Found:
        """Find an image; if there is none, its path is that of the annotations.

        Args:
            name: a path relative to the folder, or an absolute one.
        """
        file, ending = self._find(name)
        return file, bool(ending)

    def _find(self, name: str) -> tuple[Path, str]:
        """The image, and what its path and the name have in common if they are not the same."""
        file = self.folder / name
        if _exists(file, Path.is_file):
            return file, ""
        place = self._existing(name)
        for ending in _endings(_key(name)):  # longer ones come first
            candidates = self._by_ending.get(ending, [])
            if len(candidates) == 1 and candidates[0].startswith(place):
                return self.folder / candidates[0], ending
        return file, ""

    def _existing(self, name: str) -> str:
        """The folder of a name as far as it exists: an image in another folder has only the same name."""
        place = ""
        for part in PurePosixPath(_with_slashes(name)).parts[:-1]:
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
            for ending in _endings(_key(path)):
                endings.setdefault(ending, []).append(path)
        return endings


def is_within(file: Path, folders: Iterable[Path]) -> bool:
    """Whether the path of a file, of which links are no part, leads into one of the folders."""
    path = Path(os.path.normpath(file.absolute()))
    return any(
        path.is_relative_to(place) for folder in folders for place in (folder.absolute(), folder.resolve())
    )


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


def _endings(path: str) -> list[str]:
    parts = PurePosixPath(path).parts
    return ["/".join(parts[start:]) for start in range(len(parts))]


def _key(name: str) -> str:
    return unicodedata.normalize("NFC", _with_slashes(name)).casefold()


def _with_slashes(name: str) -> str:
    return name.strip().replace("\\", "/")


def _exists(file: Path, kind: Callable[[Path], bool]) -> bool:
    try:
        return kind(file)
    except (OSError, ValueError):  # a name that is too long or has a NUL
        return False
