"""Boxes of Open Images, and CSV files in the same format (https://storage.googleapis.com/openimages/web).

The columns ImageID, LabelName, XMin, XMax, YMin and YMax are needed; coordinates are fractions of the image's
sides, and the name of an image is its ImageID. Objects with IsGroupOf are crowds.
"""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePath
from typing import Any

from ...errors import ConfigError
from ..checks.findings import Findings
from .base import FolderFormat, Reading, Source
from .building import Annotation, Sample, images_below
from .geometry import ShapeError, label_of, number, rectangle, to_object
from .layout import divide, files_below, first_files, read_text, text_lines
from .tool_files import build_with_names, csv_rows, files_of_split, reported

__all__ = ["FORMAT"]

SIDES = ("XMin", "YMin", "XMax", "YMax")
COLUMNS = ("ImageID", "LabelName", *SIDES)
MASK_COLUMNS = ("MaskPath", "ImageID")
CLASS_FILES = ("class-descriptions", "classes")  # in the names of files with the classes' names
TOLERANCE = 1e-3  # by which rounded fractions may exceed 0 to 1

Row = tuple[str, Mapping[str, str]]  # place and fields


def _recognize(root: Path) -> bool:
    files = [root] if root.is_file() else first_files(root, ".csv", limit=20)
    return any(_has_columns(file, COLUMNS) for file in files)


def _has_columns(file: Path, columns: Sequence[str]) -> bool:
    if file.suffix.lower() != ".csv":
        return False
    try:
        with file.open("rb") as opened:
            head = opened.read(4000).replace(b"\0", b"")  # of UTF-16
    except OSError:
        return False
    first = head.decode("utf-8-sig", "replace").lstrip("\ufffd").splitlines()[:1]
    return set(columns) <= {name.strip().strip('"') for line in first for name in line.split(",")}


def _open(root: Path, split: str, label: str) -> Source | None:
    base = root if root.is_dir() else root.parent
    files, note = files_of_split(root, split, partial(_has_columns, columns=COLUMNS), by_stem=True)
    if not files:
        if split == "train":
            raise ConfigError(f"{label}: there is no CSV file with the columns {', '.join(COLUMNS)}")
        return None
    masks, _ = files_of_split(root, split, partial(_has_columns, columns=MASK_COLUMNS), by_stem=True)
    classes = [base / file for file in files_below(base) if _names_classes(file)]
    read = partial(_read, base, files, masks, classes, split)
    return Source(f"{label}: {split}", (*files, *masks, *classes), read, settings=(split,), note=note)


def _names_classes(file: PurePath) -> bool:
    return file.suffix.lower() == ".csv" and any(name in file.stem.lower() for name in CLASS_FILES)


def _read(
    root: Path,
    files: Sequence[Path],
    masks: Sequence[Path],
    classes: Sequence[Path],
    split: str,
    reading: Reading,
) -> dict[str, Any]:
    findings = reading.findings
    images = _images(root, split)
    rows: dict[str, list[Row]] = defaultdict(list)
    missing: Counter[str] = Counter()  # the whole file has millions of rows, and often few images are there
    for file in files:
        for place, row in _rows(file, root, findings):
            name = row.get("ImageID", "").strip()
            if not name:
                findings.add("invalid_annotation", f"{place}: it has no ImageID")
            elif name in images:
                rows[name].append((place, row))
            else:
                missing[name] += 1
    findings.add("missing_image", *(f"{name}: {count} objects" for name, count in missing.items()))
    findings.add("ignored_shape", *(f"{file.relative_to(root)}: masks" for file in masks))
    headers = reading.headers([images[name] for name in rows])
    samples: list[Sample] = []
    for name, found in rows.items():
        header = headers[images[name]]
        size = None if header.problem else header.shown
        samples.append((images[name], size, _objects(found, size, findings) if size else ()))
    names = _class_names(classes, findings)
    used = {annotation["category"] for _, _, objects in samples for annotation in objects}
    # Open Images lists 601 classes, of which most sets have only a few
    return build_with_names(samples, [code for code in names if code in used], names)


def _rows(file: Path, root: Path, findings: Findings) -> Iterator[Row]:
    """The rows of a CSV file with their places."""
    name = file.relative_to(root).as_posix()
    try:
        text = read_text(file)
    except OSError as error:
        findings.add("invalid_annotation", f"{name}: {error.strerror}")
        return
    for place, row in csv_rows(text, name, findings):
        yield place, {key.strip(): value.strip() for key, value in row.items()}


def _images(root: Path, split: str) -> dict[str, Path]:
    """The images by their names without suffix; among several, the one in a folder of the split."""
    images: dict[str, Path] = {}
    below = images_below(root)
    of_split, _ = divide([image.relative_to(root) for image in below], split)
    for image in (*below, *(root / image for image in of_split)):
        images[image.stem] = image
    return images


def _objects(rows: Sequence[Row], size: tuple[int, int], findings: Findings) -> list[Annotation]:
    objects = []
    for place, row in rows:
        with reported(findings, place):
            fractions = [number(row.get(side)) for side in SIDES]
            outside = [value for value in fractions if not -TOLERANCE <= value <= 1 + TOLERANCE]
            if outside:
                raise ShapeError(f"{outside[0]:g} is not a fraction of an image's side, 0 to 1")
            left, top, right, bottom = (value * size[i % 2] for i, value in enumerate(fractions))
            if left > right or top > bottom:
                raise ShapeError("XMin > XMax" if left > right else "YMin > YMax")
            shape = rectangle([(left, top), (right, bottom)])
            is_crowd = row.get("IsGroupOf", "").strip() == "1"  # -1: unknown
            objects.append(
                {**to_object(label_of(row.get("LabelName")), shape, place), "iscrowd": int(is_crowd)}
            )
    return objects


def _class_names(files: Sequence[Path], findings: Findings) -> dict[str, str]:
    """Map LabelName to the name of the class, in the order of files whose lines have both."""
    names: dict[str, str] = {}
    for file in files:
        try:
            fields = [field for _, line in text_lines(file) for field in csv.reader([line])]
        except (OSError, csv.Error) as error:
            findings.add("invalid_annotation", f"{file.name}: {error}")
            continue
        for code, *more in fields:
            if code != "LabelName" and more and more[0].strip():
                names.setdefault(code.strip(), more[0].strip())
    return names


FORMAT = FolderFormat("open_images", ("bbox",), _recognize, _open)
