"""Files of a dataset: text of any encoding, paths of other machines, folders of splits."""

from __future__ import annotations

import codecs
import glob
import os
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePath, PureWindowsPath

from .splits import SPLIT_NAMES

__all__ = [
    "divide",
    "exists",
    "files_below",
    "first_files",
    "locate",
    "name_key",
    "path_parts",
    "read_bytes",
    "read_text",
    "text_lines",
]

#: Names of the folders and lists of all splits
ALL_NAMES = frozenset(name for names in SPLIT_NAMES.values() for name in names)


def read_bytes(file: Path) -> bytes:
    """The content of a file.

    Raises:
        OSError: the file cannot be read, or is none: a pipe would be waited for.
    """
    if file.exists() and not file.is_file():
        raise OSError(f"{file} is not a file")
    return file.read_bytes()


def read_text(file: Path) -> str:
    """The text of a file in UTF-8, or in UTF-16 with a byte order mark.

    Bytes that are not UTF-8 become U+FFFD, so that they spoil the lines that contain them, not the file.

    Raises:
        OSError: the file cannot be read.
    """
    content = read_bytes(file)
    utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))  # as PowerShell writes
    return content.decode("utf-16" if utf16 else "utf-8-sig", "replace")


def text_lines(file: Path) -> list[tuple[int, str]]:
    """The lines of a text file that are not blank, each with its line number from 1.

    Raises:
        OSError: the file cannot be read.
    """
    lines = enumerate(read_text(file).splitlines(), start=1)
    return [(number, line.strip()) for number, line in lines if line.strip()]


def files_below(folder: Path) -> list[PurePath]:
    """All paths below a folder, relative to it, in alphabetical order; hidden ones are skipped."""
    return sorted(map(PurePath, glob.iglob("**/*", root_dir=folder, recursive=True)))


def first_files(folder: Path, suffix: str, limit: int = 5, folders: int = 100) -> Iterator[Path]:
    """The first files with a suffix below a folder; to be quick, only some sub-folders are searched."""
    for number, (place, below, names) in enumerate(os.walk(folder)):
        below[:] = sorted(name for name in below if not name.startswith("."))
        for name in sorted(names):
            if name.lower().endswith(suffix) and not name.startswith("."):
                yield Path(place, name)
                limit -= 1
            if not limit:
                return
        if number >= folders:
            return


def name_key(name: str) -> str:
    """A name without differences of case and of Unicode form, which change from one system to another."""
    return unicodedata.normalize("NFC", name).casefold()


def path_parts(text: str) -> tuple[str, ...]:
    r"""The parts of a path of any system, such as ``C:\set\a.jpg``, without drive, root, ``.`` and ``..``."""
    path = PureWindowsPath(text)
    return tuple(part for part in path.parts if part not in (path.anchor, ".", ".."))


def locate(text: str, bases: Sequence[Path]) -> Path | None:
    """Find a file or folder that a dataset names by a path, which may be of another machine.

    The path is tried as it is, then its trailing parts: ``/home/me/set/train/images``, then
    ``train/images``. A part that names a split is never dropped, which would confuse the splits.

    Args:
        text: the path, with separators of any system.
        bases: the folders that it may be relative to, the likeliest first.
    """
    for name in dict.fromkeys((text, text.replace("\\", "/"))):
        for base in bases:
            if exists(path := base / os.path.expanduser(name)):
                return path
    parts = path_parts(text)
    for start, part in enumerate(parts):
        for base in bases:
            if exists(path := base.joinpath(*parts[start:])):
                return path
        if _split_name((part,)):
            break
    return None


def exists(path: Path) -> bool:
    """Whether a path exists; paths that no file can have do not."""
    try:
        return path.exists()
    except (OSError, ValueError):  # too long, or with a NUL
        return False


def divide(files: Sequence[PurePath], split: str) -> tuple[list[PurePath], str]:
    """The files of a split, which are those in its folders, such as ``train/`` and ``valid/``.

    Without folders of both splits, all files are the training split, so that none is lost.

    Args:
        files: relative paths.
        split: ``train`` or ``val``.

    Returns:
        The files, and a note on how they were found.
    """
    groups: dict[str, list[PurePath]] = defaultdict(list)
    for file in files:
        groups[_split_name(file.parts[:-1])].append(file)
    names = {key: next((n for n in options if n in groups), None) for key, options in SPLIT_NAMES.items()}
    train, val = names["train"], names["val"]
    if train is None or val is None:
        note = "there are neither lists nor folders of two splits: all files are the training split"
        return (list(files) if split == "train" else []), note
    rest = len(files) - len(groups[train]) - len(groups[val])
    unused = f"; {rest} other files are not used" if rest else ""
    return groups[train if split == "train" else val], f"the splits are the folders {train} and {val}{unused}"


def _split_name(folders: Iterable[str]) -> str:
    """The first folder that is named as a split, such as ``train`` or ``train2017``; "" if there is none."""
    names = (folder.lower().rstrip("0123456789_-") for folder in folders)
    return next((name for name in names if name in ALL_NAMES), "")
