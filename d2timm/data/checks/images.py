"""Check the images of a COCO file: whether they exist, can be read and have the size of the annotations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .finder import Finder
from .findings import Findings
from .headers import Header, read_headers
from .orientation import Turn
from .values import as_number, as_numbers

__all__ = ["CheckedImage", "check_images"]

TOLERANCE = 0.01  # of a side, by which boxes may leave the frame that they are drawn in
DEEP = ("I", "F")  # Pillow's modes of more than 8 bits begin with these

Size = tuple[int, int]  # (width, height)


@dataclass(frozen=True)
class CheckedImage:
    """An image that can be used.

    Attributes:
        name: the file name as the annotations give it, for findings.
        file: the image.
        turn: from the orientation of the annotations to the image as shown.
        size: (width, height) of the frame that the annotations refer to.
    """

    name: str
    file: Path
    turn: Turn
    size: Size


def check_images(
    images: Sequence[Mapping[str, Any]],
    boxes: Mapping[int, Sequence[Any]],
    folder: Path,
    max_pixels: int,
    findings: Findings,
) -> dict[int, CheckedImage]:
    """Find and check images.

    Args:
        images: the entries of the COCO file.
        boxes: index of an image -> its boxes (left, top, width, height), which decide where a photograph is
            rotated and its size fits the image as stored.
        folder: the folder of relative file names.
        max_pixels: images with more pixels cannot be used.
        findings: receives everything about images.

    Returns:
        Index of an image -> the image, for all that can be used.
    """
    finder = Finder(folder)
    found = [finder.find(image["file_name"]) for image in images]
    headers = read_headers(file for file, _ in found)
    checked: dict[int, CheckedImage] = {}
    ambiguous: list[int] = []
    for index, (image, (file, moved)) in enumerate(zip(images, found, strict=True)):
        name, header = image["file_name"], headers[file]
        if problem := _problem(image, header, max_pixels):
            findings.add(problem[0], f"{name}{problem[1]}")
            continue
        if moved:
            findings.add("moved_image", f"{name}: {file}")
        stored = _is_stored(image, header, boxes.get(index, ()))
        if stored is False and _has_stored_size(image, header):
            findings.add("stored_size", name)
        if stored is None:
            ambiguous.append(index)
        _note_form(name, image, header, findings)
        checked[index] = _checked(name, file, header, bool(stored))
    _follow_the_others(ambiguous, checked, headers, findings)
    _note_repetitions(checked.values(), findings)
    return checked


def _problem(image: Mapping[str, Any], header: Header, max_pixels: int) -> tuple[str, str] | None:
    """Why an image cannot be used: the kind of finding, and the reason."""
    if header.problem:
        return header.problem, f": {header.reason}" if header.reason else ""
    width, height = header.stored
    if width * height > max_pixels:
        return "too_large_image", f": {width}x{height} pixels"
    size = _size(image)
    if size is None or _is_near(size, header.shown) or _is_near(size, header.stored):
        return None
    exif = "" if header.orientation == 1 else f" as shown; EXIF orientation {header.orientation}"
    shown = f"{header.shown[0]}x{header.shown[1]}"
    return "other_size", f": {size[0]:g}x{size[1]:g} in the annotations, but the file has {shown}{exif}"


def _is_stored(image: Mapping[str, Any], header: Header, boxes: Sequence[Any]) -> bool | None:
    """Whether annotations refer to the image as stored instead of as shown; None if they may mean both."""
    size = _size(image)
    if header.orientation == 1 or size is None:
        return False
    if not _is_near(size, header.stored):
        return False
    if _is_near(size, header.shown):
        return None
    # some tools write the size as stored, but show the photograph upright while objects are drawn
    return _fit(boxes, header.stored) or not _fit(boxes, header.shown)


def _has_stored_size(image: Mapping[str, Any], header: Header) -> bool:
    """Whether an entry has the size of a rotated photograph as it is stored, and not as it is shown."""
    size = _size(image)
    return size is not None and _is_near(size, header.stored) and not _is_near(size, header.shown)


def _fit(boxes: Sequence[Any], size: Size) -> bool:
    width, height = (side * (1 + TOLERANCE) + 1 for side in size)
    read = filter(None, map(as_numbers, boxes))
    return all(b[0] + b[2] <= width and b[1] + b[3] <= height for b in read if len(b) == 4)


def _follow_the_others(
    ambiguous: Sequence[int],
    checked: dict[int, CheckedImage],
    headers: Mapping[Path, Header],
    findings: Findings,
) -> None:
    """Read photographs whose size fits both orientations as the tool has read all others that are rotated."""
    decided = [
        image.turn.orientation != 1
        for index, image in checked.items()
        if headers[image.file].orientation != 1 and index not in set(ambiguous)
    ]
    stored = bool(decided) and all(decided)
    for index in ambiguous:
        image = checked[index]
        checked[index] = _checked(image.name, image.file, headers[image.file], stored)
        if not decided or len(set(decided)) > 1:
            findings.add("ambiguous_orientation", image.name)
    turned = [image.name for image in checked.values() if image.turn.orientation != 1]
    findings.add("stored_orientation", *turned)


def _checked(name: str, file: Path, header: Header, stored: bool) -> CheckedImage:
    turn = Turn(header.orientation if stored else 1, header.shown)
    return CheckedImage(name, file, turn, header.stored if stored else header.shown)


def _note_form(name: str, image: Mapping[str, Any], header: Header, findings: Findings) -> None:
    if _size(image) is None:
        findings.add("size_from_file", name)
    if header.animated:
        findings.add("animation", name)
    if header.mode.startswith(DEEP):
        findings.add("high_depth", f"{name}: {header.mode}")


def _note_repetitions(images: Any, findings: Findings) -> None:
    seen: set[Path] = set()
    for image in images:
        if image.file in seen:
            findings.add("repeated_file", image.name)
        seen.add(image.file)


def _size(image: Mapping[str, Any]) -> tuple[float, float] | None:
    """(width, height) of an entry; None if it does not say it."""
    width, height = (as_number(image.get(side)) for side in ("width", "height"))
    return (width, height) if width and height and width > 0 and height > 0 else None


def _is_near(size: tuple[float, float], other: Size) -> bool:
    return all(abs(a - b) < 1 for a, b in zip(size, other, strict=True))
