"""Find the images and videos that a command line names, and name their results."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ..errors import ConfigError
from ..utils.pillow import HEIC, image_suffixes

__all__ = ["Found", "Input", "find_inputs"]

# Suffixes of the videos that are taken from folders and patterns
VIDEOS = frozenset(
    {".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4"}
    | {".mpeg", ".mpg", ".mts", ".ogv", ".webm", ".wmv"}
)


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


class Found(NamedTuple):
    """What a command line names.

    Attributes:
        root: the common folder of all inputs.
        inputs: without duplicates.
        left_out: for each folder or pattern with files of other kinds, one line with their number.
    """

    root: Path
    inputs: list[Input]
    left_out: list[str]


def find_inputs(arguments: Sequence[str], output: Path) -> Found:
    """Find the images and videos named by files, folders and patterns.

    Folders are searched recursively, and all files with the suffix of a video or of a format that Pillow
    reads are taken. Hidden files and everything in the output folder are skipped.

    Args:
        arguments: files with any suffix, folders, and patterns such as ``'photos/**/*.jpg'``.
        output: the folder for results; no argument may look for inputs in it.

    Raises:
        ConfigError: an argument has no images or videos, or results would be written among the inputs.
    """
    output = output.resolve()
    paths: dict[Path, None] = {}
    left_out = []
    for argument in arguments:
        base, matches, is_named = _expand(argument)
        if base.resolve().is_relative_to(output):
            raise ConfigError(f"--output {output} contains the input {argument}: choose another folder")
        absolute = [Path(os.path.abspath(match)) for match in matches]
        absolute = [path for path in absolute if not path.resolve().is_relative_to(output)]
        taken = [path for path in absolute if is_named or _is_known(path)]
        others = [path for path in absolute if not is_named and not _is_known(path)]
        if not taken:
            reason = "; ".join(["no images or videos found", *_describe(others)])
            raise ConfigError(f"{argument}: {reason}")
        left_out += [f"{argument}: {line}" for line in _describe(others)]
        paths |= dict.fromkeys(taken)
    root = Path(os.path.commonpath([path.parent for path in paths]))
    return Found(root, _name_results(root, paths), left_out)


def _expand(argument: str) -> tuple[Path, list[Path], bool]:
    """The folder that an argument searches, the files that it finds, and whether it names a single file."""
    path = Path(os.path.expanduser(argument))
    if path.is_dir():
        return path, sorted(_files_in(path)), False
    if path.is_file():
        return path.parent, [path], True
    if not glob.has_magic(argument):
        raise ConfigError(f"{argument}: no such file or folder")
    base = next(parent for parent in path.parents if not glob.has_magic(str(parent)))
    matches = [Path(match) for match in sorted(glob.glob(str(path), recursive=True))]
    return base, [match for match in matches if match.is_file() and not match.name.startswith(".")], False


def _files_in(folder: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(place, name) for name in files if not name.startswith("."))


def _is_known(path: Path) -> bool:
    return path.suffix.lower() in image_suffixes() | VIDEOS


def _describe(others: Sequence[Path]) -> list[str]:
    """Lines on files that are left out because of their suffixes."""
    photographs = [path for path in others if path.suffix.lower() in HEIC]  # the plug-in is missing
    rest = [path for path in others if path.suffix.lower() not in HEIC]
    lines = []
    if len(rest) == 1:
        lines.append(f"1 file that is neither an image nor a video was left out: {rest[0].name}")
    elif rest:
        count, example = len(rest), rest[0].name
        lines.append(f"{count} files that are neither images nor videos were left out, such as {example}")
    if photographs:
        count, example = len(photographs), photographs[0].name
        lines.append(f"HEIC images left out: {count}, such as {example}: pip install 'd2timm[heic]'")
    return lines


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
