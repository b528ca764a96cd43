"""Check the images of a COCO file: whether they exist, can be read and have the size of the annotations."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .findings import Findings
from .frames import Photo, choose_frames, is_near
from .headers import Header, read_headers
from .orientation import Turn
from .values import as_number

__all__ = ["CheckedImage", "check_images"]

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
    found: Sequence[tuple[Path, bool]],
    annotations: Mapping[int, Sequence[Mapping[str, Any]]],
    max_pixels: int,
    findings: Findings,
    outside: Collection[Path] = (),
) -> dict[int, CheckedImage]:
    """Check images.

    Args:
        images: the entries of the COCO file.
        found: the file of each image, and whether its path is another than in its entry.
        annotations: index of an image -> its objects, which may show the orientation of photographs.
        max_pixels: images with more pixels cannot be used.
        findings: receives everything about images.
        outside: files that may not be read.

    Returns:
        Index of an image -> the image, for all that can be used.
    """
    headers = read_headers(file for file, _ in found if file not in outside)
    usable: dict[int, Header] = {}
    for index, (image, (file, moved)) in enumerate(zip(images, found, strict=True)):
        if file in outside:
            findings.add("outside_image", image["file_name"])
            continue
        name, header = image["file_name"], headers[file]
        if problem := _problem(image, header, max_pixels):
            findings.add(problem[0], f"{name}{problem[1]}")
            continue
        if moved:
            findings.add("moved_image", f"{name}: {file}")
        _note_form(name, image, header, findings)
        usable[index] = header
    photos = {
        index: Photo(header.stored, header.shown, _size(images[index]), annotations.get(index, ()))
        for index, header in usable.items()
        if header.orientation != 1
    }
    stored, unsure = choose_frames(photos)
    findings.add("ambiguous_orientation", *(images[index]["file_name"] for index in sorted(unsure)))
    findings.add("stored_orientation", *(images[index]["file_name"] for index in sorted(stored)))
    other = (i for i, photo in photos.items() if i not in stored and photo.by_size())
    findings.add("stored_size", *(images[index]["file_name"] for index in other))
    checked = {
        index: _checked(images[index]["file_name"], found[index][0], header, index in stored)
        for index, header in usable.items()
    }
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
    if size is None or is_near(size, header.shown) or is_near(size, header.stored):
        return None
    exif = "" if header.orientation == 1 else f" as shown; EXIF orientation {header.orientation}"
    shown = f"{header.shown[0]}x{header.shown[1]}"
    return "other_size", f": {size[0]:g}x{size[1]:g} in the annotations, but the file has {shown}{exif}"


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


def _note_repetitions(images: Iterable[CheckedImage], findings: Findings) -> None:
    seen: set[Path] = set()
    for image in images:
        if image.file in seen:
            findings.add("repeated_file", image.name)
        seen.add(image.file)


def _size(image: Mapping[str, Any]) -> tuple[float, float] | None:
    """(width, height) of an entry; None if it does not say it."""
    width, height = (as_number(image.get(side)) for side in ("width", "height"))
    return (width, height) if width and height and width > 0 and height > 0 else None
