"""Annotations of VGG Image Annotator 1 and 2 (https://www.robots.ox.ac.uk/~vgg/software/via).

Projects and exports have the same entries:

    {"a.jpg12345": {"filename": "a.jpg", "size": 12345, "regions": [
        {"shape_attributes": {"name": "rect", "x": …}, "region_attributes": {"class": "cat"}}]}}
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from ...errors import ConfigError
from ...utils.json_file import read_json
from ..checks.findings import Findings
from .base import FolderFormat, Reading, Source
from .building import Annotation, Sample
from .geometry import (
    Shape,
    ShapeError,
    corners,
    ellipse,
    label_of,
    number,
    polygon,
    rectangle,
    to_object,
)
from .layout import read_text
from .tool_files import (
    Images,
    any_mentions,
    as_mapping,
    build_with_names,
    csv_rows,
    files_of_split,
    mentions,
    readable,
    reported,
)

__all__ = ["FORMAT"]

CLASS_NAMES = (
    "class",
    "label",
    "name",
    "type",
    "category",
)  # of the attribute with the class, if there are several
LISTS = ("dropdown", "radio", "checkbox", "image")  # types of attributes with a list of values
SINGLE = ("dropdown", "radio", "image")
ONLY_CLASS = "object"
COLUMNS = ("filename", "region_shape_attributes", "region_attributes")
#: Words that all files with a suffix contain
MARKS = {".json": ('"regions"', '"filename"'), ".csv": COLUMNS}

Region = tuple[str, Mapping[str, Any], Mapping[str, Any]]  # place, shape_attributes, region_attributes


def _recognize(root: Path) -> bool:
    return any(any_mentions(root, suffix, *words) for suffix, words in MARKS.items())


def _is_via(file: Path, suffix: str) -> bool:
    return file.suffix.lower() == suffix and mentions(file, *MARKS[suffix])


def _open(root: Path, split: str, label: str) -> Source | None:
    for suffix in MARKS:  # a CSV file beside the project is an export of the same
        files, note = files_of_split(root, split, partial(_is_via, suffix=suffix), by_stem=True)
        if files:
            read = partial(_read, root if root.is_dir() else root.parent, files, label)
            return Source(f"{label}: {split}", tuple(files), read, note=note)
    if split == "train":
        raise ConfigError(f"{label}: there is no project, JSON or CSV file of VGG Image Annotator 1 or 2")
    return None


def _read(root: Path, files: Sequence[Path], label: str, reading: Reading) -> dict[str, Any]:
    images, findings = Images(root, reading), reading.findings
    found: dict[Path, list[Region]] = {}
    attributes: dict[str, Mapping[str, Any]] = {}
    parse = _read_rows if files[0].suffix.lower() == ".csv" else read_json
    for file, path, content in readable(files, parse, root, findings):
        entries, declared = _entries(content, path, findings)
        attributes |= declared
        for place, filename, regions in entries:
            image = images.find([filename], file.parent)
            if image not in found:  # another export of the same project
                found[image] = regions
            elif [r[1:] for r in found[image]] != [r[1:] for r in regions]:
                found[image] = [*found[image], *regions]
                findings.add("several_files", place)
    name, values = _class_attribute([r[2] for regions in found.values() for r in regions], attributes, label)
    if name is None:
        findings.add("no_classes", *(file.relative_to(root) for file in files))
    samples: list[Sample] = [
        (image, None, _objects(regions, name, values, findings)) for image, regions in found.items()
    ]
    return build_with_names(samples, list(dict.fromkeys(values.values())))


def _entries(
    content: Any, name: str, findings: Findings
) -> tuple[list[tuple[str, str, list[Region]]], Mapping[str, Any]]:
    """The (place, filename, regions) of each image in a file, and the declared attributes of regions."""
    if isinstance(content, str):
        return _csv_entries(content, name, findings), {}
    content = content if isinstance(content, dict) else {}
    metadata = content.get("_via_img_metadata", content)
    declared = content.get("_via_attributes")
    declared = declared.get("region") if isinstance(declared, dict) else None
    entries = []
    for key, value in metadata.items() if isinstance(metadata, dict) else ():
        if isinstance(value, dict) and "filename" not in value and "regions" not in value:
            continue  # settings
        place = f"{name}: {key}"
        with reported(findings, place):
            entry = as_mapping(value, "it")
            if not isinstance(entry.get("filename"), str) or not entry["filename"]:
                raise ShapeError(f"filename is {entry.get('filename')!r:.40}")
            entries.append(
                (place, entry["filename"], _regions(entry, f"{name}: {entry['filename']}", findings))
            )
    return entries, declared if isinstance(declared, dict) else {}


def _regions(entry: Mapping[str, Any], place: str, findings: Findings) -> list[Region]:
    regions = entry.get("regions") or []
    regions = list(regions.values()) if isinstance(regions, dict) else regions  # VIA 1
    if not isinstance(regions, list):
        raise ShapeError(f"regions is {regions!r:.40}")
    read: list[Region] = []
    for index, region in enumerate(regions, start=1):
        source = f"{place}: region {index}"
        with reported(findings, source):
            region = as_mapping(region, "it")
            shape = as_mapping(region.get("shape_attributes"), "shape_attributes")
            read.append(
                (source, shape, as_mapping(region.get("region_attributes") or {}, "region_attributes"))
            )
    return read


def _read_rows(file: Path) -> str:
    try:
        return read_text(file)
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}") from None


def _csv_entries(text: str, name: str, findings: Findings) -> list[tuple[str, str, list[Region]]]:
    found: dict[str, list[Region]] = defaultdict(list)
    for place, row in _rows(text, name, findings):
        regions = found[row["filename"]]
        with reported(findings, place):
            try:
                shape, attributes = (json.loads(row[key] or "{}") for key in COLUMNS[1:])
            except (ValueError, RecursionError) as error:
                raise ShapeError(f"its attributes are not JSON: {error}") from None
            if shape:  # an image without regions has a line as well
                attributes = as_mapping(attributes, COLUMNS[2])
                regions.append((place, as_mapping(shape, COLUMNS[1]), attributes))
    return [(f"{name}: {filename}", filename, regions) for filename, regions in found.items()]


def _rows(text: str, name: str, findings: Findings) -> Iterator[tuple[str, dict[str, str]]]:
    """The rows of a CSV file with their places."""
    for place, row in csv_rows(text.lstrip("#"), name, findings):
        if row.get("filename"):
            yield place, {key: row.get(key, "") for key in COLUMNS}
        else:
            findings.add("invalid_annotation", f"{place}: it has no filename")


def _class_attribute(
    regions: Sequence[Mapping[str, Any]], declared: Mapping[str, Any], label: str
) -> tuple[str | None, dict[str, str]]:
    """The attribute of regions that is their class, and its values with their names.

    Returns:
        The attribute, None if regions have no attributes; values -> names, {} if any value is allowed.

    Raises:
        ConfigError: several attributes may be the class.
    """
    declared = {name: value for name, value in declared.items() if isinstance(value, dict)}
    names = list(dict.fromkeys([*declared, *(name for region in regions for name in region)]))
    used = [name for name in names if any(region.get(name) not in (None, "", {}) for region in regions)]
    names = used or names
    for allowed in (
        [name for name in names if declared.get(name, {}).get("type") in SINGLE],
        [name for key in CLASS_NAMES for name in names if name.lower() == key][:1],
    ):
        names = allowed if len(names) > 1 and allowed else names
    if len(names) > 1:
        raise ConfigError(
            f"{label}: the regions have the attributes {', '.join(names)}: name the one that is the class "
            f"'class' in VGG Image Annotator"
        )
    if not names:
        return None, {}
    attribute = declared.get(names[0], {})
    options = attribute.get("options") if attribute.get("type") in LISTS else None
    if not isinstance(options, dict):
        return names[0], {}
    return names[0], {
        str(value): text.strip() if isinstance(text, str) and text.strip() else str(value)
        for value, text in options.items()
    }


def _objects(
    regions: Sequence[Region], name: str | None, values: Mapping[str, str], findings: Findings
) -> list[Annotation]:
    objects = []
    for source, drawn, attributes in regions:
        with reported(findings, source):
            shape = _shape(drawn)
            label = ONLY_CLASS if name is None else _class_of(attributes.get(name), source, findings)
            objects.append(to_object(values.get(label, label), shape, source))
            if shape.finding:
                findings.add(shape.finding, f"{source}: {shape.reason}")
    return objects


def _class_of(value: Any, source: str, findings: Findings) -> str:
    if isinstance(value, dict):  # a checkbox: each value that is set
        chosen = [str(option) for option, is_set in value.items() if is_set]
        findings.add("further_class", *(f"{source}: {option}" for option in chosen[1:]))
        value = chosen[0] if chosen else None
    return label_of(value)


def _shape(drawn: Mapping[str, Any]) -> Shape:
    kind = drawn.get("name")
    if kind == "rect":
        x, y = number(drawn.get("x")), number(drawn.get("y"))
        return rectangle([(x, y), (x + number(drawn.get("width"), 0), y + number(drawn.get("height"), 0))])
    if kind in ("circle", "ellipse"):
        radii = ("r", "r") if kind == "circle" else ("rx", "ry")
        first, second = (number(drawn.get(radius)) for radius in radii)
        degrees = math.degrees(number(drawn.get("theta") or 0))
        return ellipse(number(drawn.get("cx")), number(drawn.get("cy")), (first, second), degrees)
    if kind in ("polygon", "polyline"):
        xs, ys = drawn.get("all_points_x"), drawn.get("all_points_y")
        if not isinstance(xs, list) or not isinstance(ys, list) or len(xs) != len(ys):
            raise ShapeError("all_points_x and all_points_y are not lists of the same length")
        points = corners(list(zip(xs, ys, strict=True)))
        if kind == "polyline" and len(points) < 3:
            raise ShapeError("a line", "ignored_shape")
        shape = polygon(points)  # many outline objects with polylines
        return replace(shape, finding="converted_shape", reason=kind) if kind == "polyline" else shape
    raise ShapeError(f"{kind!r:.40}", "ignored_shape" if kind == "point" else "invalid_annotation")


FORMAT = FolderFormat("via", ("bbox", "segm"), _recognize, _open)
