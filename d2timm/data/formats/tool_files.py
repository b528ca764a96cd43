"""Files that annotation tools write: JSON of any structure, and the images that it names."""

from __future__ import annotations

import csv
import functools
import io
import mmap
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path, PurePath
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

from ...errors import ConfigError
from ..checks.finder import Finder
from ..checks.findings import Findings
from .base import Reading
from .building import Sample, build_coco
from .geometry import ShapeError, Size, number
from .layout import divide, exists, files_below, first_files

__all__ = [
    "Images",
    "any_mentions",
    "as_list",
    "as_mapping",
    "build_with_names",
    "csv_rows",
    "files_of_split",
    "is_file",
    "mentions",
    "readable",
    "reported",
    "size_of",
]

T = TypeVar("T")

ENCODINGS = ("utf-8", "utf-16-le", "utf-16-be")
URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)  # a drive such as C: is none


def mentions(file: Path, *words: str) -> bool:
    """Whether a file contains all of the words, in any of the usual encodings; False if it cannot be read."""
    with (
        suppress(OSError, ValueError),  # an empty file is a ValueError
        file.open("rb") as opened,
        mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content,
    ):
        return any(all(content.find(w.encode(code)) >= 0 for w in words) for code in ENCODINGS)
    return False


def csv_rows(text: str, name: str, findings: Findings) -> Iterator[tuple[str, dict[str, str]]]:
    """The rows of a CSV file with their places; missing values are "", surplus ones are left out.

    Args:
        text: the file, whose first row has the names of the columns.
        name: of the file, for findings.
        findings: receives rows that cannot be read.
    """
    reader = csv.DictReader(io.StringIO(text), restval="", skipinitialspace=True)
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            findings.add("invalid_annotation", f"{name}:{reader.line_num}: {error}")
            continue
        yield f"{name}:{reader.line_num}", {key: str(value) for key, value in row.items() if key}


def any_mentions(root: Path, suffix: str, *words: str, limit: int = 20) -> bool:
    """Whether one of the first files with a suffix contains all of the words; ``root`` may be the file."""
    files = [root] if root.is_file() else first_files(root, suffix, limit)
    return any(file.suffix.lower() == suffix and mentions(file, *words) for file in files)


def files_of_split(
    root: Path, split: str, keep: Callable[[Path], bool], by_stem: bool = False
) -> tuple[list[Path], str]:
    """The annotation files of a split, which are in its folders.

    Args:
        root: the folder of the dataset, or its only annotation file.
        split: ``train`` or ``val``.
        keep: whether a file is an annotation file.
        by_stem: whether names of files, such as ``instances_train2017.json``, name the split as well.

    Returns:
        The files, and a note on how they were found.
    """
    if root.is_file():
        return ([root] if split == "train" and keep(root) else []), ""
    files = [file for file in files_below(root) if keep(root / file)]
    words = {_with_words(file) if by_stem else file: file for file in files}
    chosen, note = divide(list(words), split)
    return [root / words[file] for file in chosen], note if len(files) > 1 else ""


def readable(
    files: Sequence[Path], read: Callable[[Path], T], root: Path, findings: Findings
) -> Iterator[tuple[Path, str, T]]:
    """The files that can be read, each with its path for findings and its content.

    Args:
        files: annotation files below a folder.
        read: reads a file; raises ConfigError if that is not possible.
        root: the folder.
        findings: receives the other files.

    Raises:
        ConfigError: no file can be read.
    """
    errors = []
    for file in files:
        try:
            content = read(file)
        except ConfigError as error:
            errors.append(error)
            findings.add("invalid_annotation", error)
            continue
        yield file, file.relative_to(root).as_posix(), content
    if errors and len(errors) == len(files):
        raise errors[0]


def as_mapping(value: Any, what: str) -> Mapping[str, Any]:
    """A JSON object.

    Raises:
        ShapeError: the value is another one.
    """
    if not isinstance(value, dict):
        raise ShapeError(f"{what} is {value!r:.40}, not an object")
    return value


def as_list(value: Any, what: str) -> Sequence[Any]:
    """A JSON array; null counts as an empty one.

    Raises:
        ShapeError: the value is another one.
    """
    if not isinstance(value, (list, type(None))):
        raise ShapeError(f"{what} is {value!r:.40}, not a list")
    return value or ()


def size_of(width: Any, height: Any) -> Size | None:
    """(width, height) of an image; None unless both are positive numbers."""
    try:
        size = int(number(width, 1)), int(number(height, 1))
    except ShapeError:
        return None
    return size


@contextmanager
def reported(findings: Findings, source: str) -> Iterator[None]:
    """Add a shape that is no object to the findings; ``source`` is its place."""
    try:
        yield
    except ShapeError as error:
        findings.add(error.kind, f"{source}: {error}")


def build_with_names(
    samples: Sequence[Sample], declared: Sequence[str], titles: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Build the content of a COCO file; classes that are declared come first, in their order.

    Args:
        samples: images with annotations that have class names.
        declared: the class names that the tool lists, which may have no objects.
        titles: the names to show for class names that are codes.
    """
    listed = [(file, size, list(objects)) for file, size, objects in samples]
    used = {annotation["category"] for _, _, objects in listed for annotation in objects}
    names = list(dict.fromkeys([*declared, *sorted(used)]))
    indices = {name: index for index, name in enumerate(names)}
    for _, _, objects in listed:
        for annotation in objects:
            annotation["category"] = indices[annotation["category"]]
    return build_coco(listed, [(titles or {}).get(name, name) for name in names])


class Images:
    """Images of a dataset by the names that annotation tools write.

    Args:
        root: the folder of the dataset, below which images are searched.
        reading: reads the headers of images whose size is not known.
    """

    def __init__(self, root: Path, reading: Reading) -> None:
        self.root = root
        self._reading = reading
        self._finder = functools.cache(Finder)

    def find(self, names: Sequence[str], folder: Path) -> Path:
        """Find an image; nothing is downloaded.

        Args:
            names: paths or addresses that it may have, the likeliest first and the plainest last.
            folder: the folder of the annotation file, which is searched before the others.

        Returns:
            The image; if it is nowhere, the path that it would have in the folder.
        """
        names = [local_name(name) for name in names]
        for place in dict.fromkeys((folder, self.root)):
            for name in names:
                file, _ = self._finder(place).find(name)
                if is_file(file):
                    return file
        return folder / names[-1].lstrip("/")

    def size(self, file: Path) -> Size | None:
        """(width, height) of an image as shown; None if it cannot be read."""
        header = self._reading.headers([file])[file]
        return None if header.problem else header.shown


def is_file(path: Path) -> bool:
    """Whether a file exists; paths that no file can have do not."""
    return exists(path) and path.is_file()


def local_name(name: str) -> str:
    """The path of an image without what belongs to an address, such as ``https://``, ``%20`` and ``?d=``."""
    path = name.replace("\\", "/")
    if not URL.match(path) and "?d=" not in path:
        return path
    with suppress(ValueError):  # an address with a broken host
        parts = urlsplit(path)
        query = dict(item.partition("=")[::2] for item in parts.query.split("&"))
        path = query.get("d") or parts.path
    return unquote(path).lstrip("/")


def _with_words(file: PurePath) -> PurePath:
    """A path in which the words of the file's name are folders, where names of splits are looked up."""
    return PurePath(*file.parts[:-1], *re.findall(r"[^\W\d_]+", file.stem), file.name)
