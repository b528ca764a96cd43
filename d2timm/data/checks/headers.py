"""Headers of image files: sizes, orientations and completeness; read in parallel and cached.

The cache has a file for each folder of images. An entry is valid as long as the name, time and size of its
image are the same, so that a second look at a dataset takes one ``stat`` per image.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

from PIL import Image
from tqdm import tqdm

from ...utils.files import atomic_write, cache_root
from ...utils.pillow import (
    BROKEN,
    has_several_images,
    open_image,
    orientation_of,
    pillow_state,
    reason_of,
    stored_size,
)

__all__ = ["Header", "State", "file_state", "read_header", "read_headers"]

VERSION = 1  # increase it when headers are read differently
TRANSPOSED = range(5, 9)  # EXIF orientations that swap width and height
CHUNK = 64  # files that a thread reads at a time
THREADS = 16  # reading waits for the disk or the network
ENDS = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82"}  # last bytes of complete files

State: TypeAlias = tuple[int, int]  # time of the last change in ns, size in bytes; (0, -1): no such file


@dataclass(frozen=True)
class Header:
    """What the header of an image file says.

    Attributes:
        stored: (width, height) as stored, in pixels; (0, 0) if the file cannot be read.
        orientation: EXIF orientation, 1 (upright) to 8.
        mode: Pillow's mode, such as ``RGB`` or ``I;16``.
        animated: whether the file has several images.
        problem: "" or the kind of finding: ``missing_image``, ``unreadable_image`` or ``truncated_image``.
        reason: why the file cannot be read.
    """

    stored: tuple[int, int] = (0, 0)
    orientation: int = 1
    mode: str = ""
    animated: bool = False
    problem: str = ""
    reason: str = ""

    @property
    def shown(self) -> tuple[int, int]:
        """(width, height) after the EXIF orientation is applied, as ``read_image`` returns it."""
        width, height = self.stored
        return (height, width) if self.orientation in TRANSPOSED else (width, height)


def read_headers(files: Iterable[Path], progress: str = "Reading image headers") -> dict[Path, Header]:
    """Read the headers of image files; files that have not changed since the last time come from the cache.

    Args:
        files: paths, which may be missing.
        progress: the title of the progress bar, which a terminal shows if reading takes longer than a second.
    """
    folders: dict[Path, list[Path]] = defaultdict(list)
    for file in dict.fromkeys(files):
        folders[file.parent].append(file)
    headers: dict[Path, Header] = {}
    changed: dict[Path, State] = {}
    for folder, members in folders.items():
        cached = _load(folder)
        for file in members:
            state, entry = file_state(file), cached.get(file.name)
            if state[1] < 0:
                headers[file] = Header(problem="missing_image")
            elif entry and tuple(entry[:2]) == state:
                headers[file] = Header(tuple(entry[2]), *entry[3:])
            else:
                changed[file] = state
    if changed:
        headers |= _read_in_parallel(list(changed), progress)
        for folder, members in folders.items():
            _store(folder, {file.name: (changed[file], headers[file]) for file in members if file in changed})
    return headers


def file_state(file: Path | str) -> State:
    """Time and size of a file, which differ once it is changed."""
    try:
        state = os.stat(file)
    except (OSError, ValueError):
        return 0, -1
    return state.st_mtime_ns, state.st_size


def read_header(file: Path) -> Header:
    """Read the header of one file. Files whose end is missing are decoded to see whether they are usable."""
    try:
        with open_image(file) as image:
            header = Header(stored_size(image), orientation_of(image), image.mode, has_several_images(image))
            if not _ends(file, ENDS.get(image.format or "")):
                return _decoded(image, header, file)
            return header
    except BROKEN as error:
        return Header(problem="unreadable_image", reason=reason_of(error, file))


def _decoded(image: Image.Image, header: Header, file: Path) -> Header:
    try:
        image.load()
    except (*BROKEN, MemoryError) as error:
        return replace(header, problem="truncated_image", reason=reason_of(error, file))
    return header


def _ends(file: Path, end: bytes | None) -> bool:
    """Whether a file ends as complete files of its format do; False if that is not known."""
    if end is None:
        return False
    with file.open("rb") as opened:
        opened.seek(-min(len(end), os.fstat(opened.fileno()).st_size), os.SEEK_END)
        return opened.read() == end


def _read_in_parallel(files: Sequence[Path], progress: str) -> dict[Path, Header]:
    chunks = [files[start : start + CHUNK] for start in range(0, len(files), CHUNK)]
    headers: dict[Path, Header] = {}
    with (
        ThreadPoolExecutor(THREADS) as pool,
        tqdm(desc=progress, total=len(files), unit=" images", delay=1, disable=None, leave=False) as bar,
    ):
        for chunk, read in zip(chunks, pool.map(_read_chunk, chunks), strict=True):
            headers.update(zip(chunk, read, strict=True))
            bar.update(len(chunk))
    return headers


def _read_chunk(files: Sequence[Path]) -> list[Header]:
    return [read_header(file) for file in files]


def _cache_file(folder: Path) -> Path:
    digest = hashlib.sha256(f"{VERSION} {pillow_state()} {folder.absolute()}".encode()).hexdigest()[:16]
    return cache_root() / f"headers-{digest}.json"


def _load(folder: Path) -> dict[str, list[Any]]:
    with suppress(OSError, ValueError):
        content = json.loads(_cache_file(folder).read_bytes())
        return content if isinstance(content, dict) else {}
    return {}


def _store(folder: Path, entries: dict[str, tuple[State, Header]]) -> None:
    if not entries:
        return
    content = _load(folder) | {name: [*state, *astuple(header)] for name, (state, header) in entries.items()}
    file = _cache_file(folder)
    with suppress(OSError):  # without a cache, the next run reads the headers again
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(file) as partial:
            partial.write_text(json.dumps(content))
