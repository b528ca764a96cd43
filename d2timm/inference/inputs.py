"""Find the images and videos that a command line names, and name their results."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import ConfigError

__all__ = ["Input", "find_inputs"]

# Suffixes of the files that are taken from folders and patterns
IMAGES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
VIDEOS = frozenset({".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm", ".wmv"})


@dataclass(frozen=True)
class Input:
    """An image or a video.

    Attributes:
        path: of the file.
        name: path relative to the common folder of all inputs, with ``/``.
        result: path of its results in the output folder, without a suffix; unique among the inputs.
    """

    path: Path
    name: str
    result: str

    @property
    def is_video(self) -> bool:
        """Whether it is a video, judged by its suffix."""
        return self.path.suffix.lower() in VIDEOS


def find_inputs(arguments: Sequence[str], output: Path) -> tuple[Path, list[Input]]:
    """Find the images and videos named by files, folders and patterns.

    Folders are searched recursively; hidden files and everything in the output folder are skipped.

    Args:
        arguments: files with any suffix, folders, and patterns such as ``'photos/**/*.jpg'``.
        output: the folder for results; no argument may look for inputs in it.

    Returns:
        The common folder of all inputs, and the inputs without duplicates.

    Raises:
        ConfigError: an argument has no images or videos, or results would be written among the inputs.
    """
    output = output.resolve()
    paths: dict[Path, None] = {}
    for argument in arguments:
        base, matches = _expand(argument)
        if base.resolve().is_relative_to(output):
            raise ConfigError(f"--output {output} contains the input {argument}: choose another folder")
        absolute = [Path(os.path.abspath(match)) for match in matches]
        absolute = [path for path in absolute if not path.resolve().is_relative_to(output)]
        if not absolute:
            raise ConfigError(f"{argument}: no images or videos found")
        paths |= dict.fromkeys(absolute)
    root = Path(os.path.commonpath([path.parent for path in paths]))
    return root, _name_results(root, paths)


def _expand(argument: str) -> tuple[Path, list[Path]]:
    """The folder that an argument searches, and its matches."""
    path = Path(argument).expanduser()
    if path.is_dir():
        return path, sorted(_files_in(path))
    if path.is_file():
        return path.parent, [path]
    if not glob.has_magic(argument):
        raise ConfigError(f"{argument}: no such file or folder")
    base = next(parent for parent in path.parents if not glob.has_magic(str(parent)))
    matches = [Path(match) for match in sorted(glob.glob(str(path), recursive=True))]
    return base, [match for match in matches if match.is_file() and _is_known(match)]


def _files_in(folder: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(place, name) for name in files if _is_known(Path(name)))


def _is_known(path: Path) -> bool:
    return path.suffix.lower() in IMAGES | VIDEOS and not path.name.startswith(".")


def _name_results(root: Path, paths: Iterable[Path]) -> list[Input]:
    """Name each result after its input; the suffix is kept where names differ in nothing else."""
    names = {path: path.relative_to(root) for path in paths}
    stems = Counter(_fold(name.with_suffix("")) for name in names.values())
    taken: set[str] = set()
    inputs = []
    for path, name in names.items():
        result = name.with_suffix("")
        if stems[_fold(result)] > 1:
            result = name
        while _fold(result) in taken:
            result = result.with_name(result.name + "~")
        taken.add(_fold(result))
        inputs.append(Input(path, name.as_posix(), result.as_posix()))
    return inputs


def _fold(path: Path) -> str:
    """The path without case: some file systems treat paths that differ in case as one file."""
    return str(path).casefold()
