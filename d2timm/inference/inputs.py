"""Which images and videos a command line means, and what their results are called."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import ConfigError

__all__ = ["IMAGES", "VIDEOS", "Input", "find"]

#: Suffixes by which files in folders are known
IMAGES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
VIDEOS = frozenset({".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm", ".wmv"})


@dataclass(frozen=True)
class Input:
    """An image or a video.

    Attributes:
        path: where it is.
        name: its path in the folder that holds all inputs, with ``/``.
        result: the path of its results in the output folder, without a suffix; no two inputs have the same.
    """

    path: Path
    name: str
    result: str

    @property
    def is_video(self) -> bool:
        """Whether it is a video, by its suffix."""
        return self.path.suffix.lower() in VIDEOS


def find(arguments: Sequence[str], output: Path) -> tuple[Path, list[Input]]:
    """Find what is meant by files, folders and patterns.

    Folders are searched with all that lies in them, but for hidden files and earlier results.

    Args:
        arguments: files of any suffix; folders; patterns such as ``'photos/**/*.jpg'``.
        output: where results will go: not where an input lies.

    Returns:
        The folder that holds all inputs, and the inputs, each once.

    Raises:
        ConfigError: nothing is there, or results would go among the inputs.
    """
    output = output.resolve()
    found: dict[Path, None] = {}
    for argument in arguments:
        base, paths = _named(argument)
        if base.resolve().is_relative_to(output):
            raise ConfigError(
                f"--output {output} holds the images themselves ({argument}): choose another folder"
            )
        there = [Path(os.path.abspath(path)) for path in paths]
        there = [path for path in there if not path.resolve().is_relative_to(output)]
        if not there:
            raise ConfigError(f"{argument}: no images or videos there")
        found |= dict.fromkeys(there)
    root = Path(os.path.commonpath([path.parent for path in found]))
    return root, _inputs(root, found)


def _named(argument: str) -> tuple[Path, list[Path]]:
    """The folder in which an argument looks, and what it finds there."""
    path = Path(argument).expanduser()
    if path.is_dir():
        return path, sorted(_files_in(path))
    if path.is_file():
        return path.parent, [path]
    if not glob.has_magic(argument):
        raise ConfigError(f"{argument}: no such file or folder")
    fixed = next(parent for parent in path.parents if not glob.has_magic(str(parent)))
    matches = [Path(match) for match in sorted(glob.glob(str(path), recursive=True))]
    return fixed, [match for match in matches if match.is_file() and _is_known(match)]


def _files_in(folder: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(place, name) for name in files if _is_known(Path(name)))


def _is_known(path: Path) -> bool:
    return path.suffix.lower() in IMAGES | VIDEOS and not path.name.startswith(".")


def _inputs(root: Path, paths: dict[Path, None]) -> list[Input]:
    """Name results like inputs, with their suffix where two of a folder differ in nothing else."""
    names = [path.relative_to(root) for path in paths]
    stems = Counter(_same(name.with_suffix("")) for name in names)
    taken: set[str] = set()
    inputs = []
    for path, name in zip(paths, names, strict=True):
        result = name.with_suffix("")
        if stems[_same(result)] > 1:
            result = name
        while _same(result) in taken:
            result = result.with_name(result.name + "~")
        taken.add(_same(result))
        inputs.append(Input(path, name.as_posix(), result.as_posix()))
    return inputs


def _same(path: Path) -> str:
    """Paths of which this is equal are one file, on some systems."""
    return str(path).casefold()
