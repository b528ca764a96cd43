"""Folders in the layout of DOTA, whose boxes are oriented (https://captain-whu.github.io/DOTA/dataset.html).

Each line of ``labelTxt/P0001.txt`` is an object: x1 y1 x2 y2 x3 y3 x4 y4 class difficult. The file may begin
with lines such as ``imagesource:GoogleEarth`` and ``gsd:0.15``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ...errors import ConfigError
from ..checks.findings import Findings
from .base import FolderFormat, Reading, Source
from .building import Annotation, Sample, build_coco, images_below
from .geometry import ShapeError, number, oriented_box, to_object
from .layout import first_files, text_lines
from .tool_files import files_of_split, reported

__all__ = ["FORMAT"]

LABEL_FOLDER = "labeltxt"  # in lower case; later versions are labelTxt-v1.5
HEADER = re.compile(r"(imagesource|gsd)\s*:", re.IGNORECASE)
LINE = re.compile(r"(?:[-+.\d]\S*\s+){8}\D")


def _recognize(root: Path) -> bool:
    files = first_files(root, ".txt", limit=20) if root.is_dir() else ()
    return any(_is_label(file) and _has_labels(file) for file in files)


def _is_label(file: Path) -> bool:
    folders = file.parent.parts
    return file.suffix.lower() == ".txt" and any(name.lower().startswith(LABEL_FOLDER) for name in folders)


def _has_labels(file: Path) -> bool:
    try:
        return any(HEADER.match(line) or LINE.match(line) for _, line in text_lines(file)[:3])
    except OSError:
        return False


def _open(root: Path, split: str, label: str) -> Source | None:
    files, note = files_of_split(root, split, _is_label) if root.is_dir() else ([], "")
    if not files:
        if split == "train":
            raise ConfigError(f"{label}: there are no text files in a folder labelTxt")
        return None
    return Source(f"{label}: {split}", tuple(files), partial(_read, root, files), note=note)


def _read(root: Path, files: Sequence[Path], reading: Reading) -> dict[str, Any]:
    images: dict[str, list[Path]] = {}
    for image in images_below(root):
        images.setdefault(image.stem, []).append(image)
    samples: list[Sample] = []
    for file in files:
        name = file.relative_to(root).as_posix()
        with reported(reading.findings, name):
            image = _image(file, images)
            samples.append((image, None, _objects(file, name, reading.findings)))
    return build_coco(samples)


def _image(file: Path, images: Mapping[str, Sequence[Path]]) -> Path:
    """The image with the name of a label file; among several, the one that is nearest to it."""
    candidates = images.get(file.stem)
    if not candidates:
        raise ShapeError(f"no image has the name {file.stem}", "missing_image")
    return max(candidates, key=lambda image: len(set(image.parents) & set(file.parents)))


def _objects(file: Path, name: str, findings: Findings) -> list[Annotation]:
    try:
        lines = text_lines(file)
    except OSError as error:
        raise ShapeError(f"it cannot be read: {error.strerror}") from None
    objects = []
    for line_number, line in lines:
        source = f"{name}:{line_number}"
        if not HEADER.match(line):
            with reported(findings, source):
                objects.append(_object(line, source))
                findings.add("oriented_box", source)
    return objects


def _object(line: str, source: str) -> Annotation:
    """The object of a line; the last field may be missing, and names of classes may have blanks."""
    fields = line.split()
    *names, last = fields[8:] or [""]
    difficult = last if names and last.isdecimal() else "0"
    name = " ".join(names if difficult is last else [*names, last])
    if not name:
        raise ShapeError(f"{line!r:.60} is not x1 y1 x2 y2 x3 y3 x4 y4 class difficult")
    values = [number(field) for field in fields[:8]]
    shape = oriented_box(list(zip(values[::2], values[1::2], strict=True)))
    # as in VOC, difficult objects are used neither in training nor in evaluation
    return {**to_object(name, shape, source), "ignore": int(difficult != "0")}


FORMAT = FolderFormat("dota", ("bbox", "segm"), _recognize, _open)
