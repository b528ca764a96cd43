"""Projects that Supervisely exports: meta.json, and dataset/img/a.jpg with dataset/ann/a.jpg.json.

https://docs.supervisely.com/data-organization/00_ann_format_navi
"""

from __future__ import annotations

import base64
import math
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from ...errors import ConfigError
from ...utils.json_file import read_json
from ...utils.pillow import image_suffixes
from .base import FolderFormat, Reading, Source
from .building import Annotation, Sample
from .geometry import (
    Shape,
    ShapeError,
    Size,
    bitmap,
    corners,
    decode_png,
    label_of,
    number,
    polygon,
    rectangle,
    to_object,
    turned_box,
    union,
)
from .layout import first_files
from .tool_files import (
    as_list,
    as_mapping,
    build_with_names,
    files_of_split,
    is_file,
    mentions,
    readable,
    reported,
    size_of,
)

__all__ = ["FORMAT"]

META = "meta.json"
NO_OBJECTS = ("point", "line", "polyline", "graph", "cuboid", "cuboid_2d")
LARGEST_PNG = 2**28  # bytes


def _recognize(root: Path) -> bool:
    if root.is_dir() and (root / META).is_file():
        return mentions(root / META, '"classes"') and any(map(_is_annotation, first_files(root, ".json", 20)))
    return False


def _is_annotation(file: Path) -> bool:
    return file.parent.name == "ann" and file.suffix.lower() == ".json"


def _open(root: Path, split: str, label: str) -> Source | None:
    files, note = files_of_split(root, split, _is_annotation) if root.is_dir() else ([], "")
    if not files:
        if split == "train":
            raise ConfigError(
                f"{label}: there are no JSON files in folders named ann, as in a Supervisely project"
            )
        return None
    read = partial(_read, root, files)
    return Source(f"{label}: {split}", (root / META, *files), read, note=note)


def _read(root: Path, files: Sequence[Path], reading: Reading) -> dict[str, Any]:
    samples: list[Sample] = []
    for file, name, content in readable(files, read_json, root, reading.findings):
        with reported(reading.findings, name):
            content = as_mapping(content, "it")
            image, size = _image(file), as_mapping(content.get("size") or {}, "size")
            sides = size_of(size.get("width"), size.get("height")) or _header_size(image, reading)
            objects = as_list(content.get("objects"), "objects")
            samples.append((image, sides, _objects(objects, name, sides, reading)))
    return build_with_names(samples, _classes(root / META, reading))


def _classes(file: Path, reading: Reading) -> list[str]:
    """The classes of a project, without those of points and lines."""
    if not file.is_file():
        return []
    names = []
    try:
        classes = as_list(as_mapping(read_json(file), "it").get("classes"), "classes")
    except (ConfigError, ShapeError) as error:
        reading.findings.add("invalid_annotation", f"{file.name}: {error}")
        return []
    for index, entry in enumerate(classes, start=1):
        with reported(reading.findings, f"{file.name}: class {index}"):
            entry = as_mapping(entry, "it")
            if entry.get("shape") not in NO_OBJECTS:
                names.append(label_of(entry.get("title")))
    return names


def _image(file: Path) -> Path:
    """The image of an annotation file, whose name has the image's suffix or, in old projects, has not."""
    folder = file.parent.parent / "img"
    named = folder / file.stem
    if named.suffix.lower() not in image_suffixes() or not is_file(named):
        for suffix in sorted(image_suffixes()):
            if is_file(other := folder / f"{file.stem}{suffix}"):
                return other
    return named


def _header_size(image: Path, reading: Reading) -> Size | None:
    header = reading.headers([image])[image]
    return None if header.problem else header.shown


def _objects(entries: Sequence[Any], name: str, size: Size | None, reading: Reading) -> list[Annotation]:
    objects = []
    for index, entry in enumerate(entries, start=1):
        source = f"{name}: object {index}"
        with reported(reading.findings, source):
            entry = as_mapping(entry, "it")
            shape, label = _shape(entry, size), label_of(entry.get("classTitle"))
            objects.append(to_object(label, shape, source))
            if shape.finding:
                reading.findings.add(shape.finding, f"{source}: {label}")
    return objects


def _shape(entry: Mapping[str, Any], size: Size | None) -> Shape:
    kind = entry.get("geometryType") or entry.get("shape")
    if kind in NO_OBJECTS:
        raise ShapeError(str(kind), "ignored_shape")
    if kind is None:  # projects of before 2020
        kind = "bitmap" if entry.get("bitmap") else "polygon"
    if kind in ("bitmap", "alpha_mask"):
        return _bitmap(as_mapping(entry.get("bitmap") or entry.get(kind), kind), size)
    if kind == "oriented_bbox":
        (left, top), (right, bottom) = _two(corners(entry.get("points")))
        middle = (left + right) / 2, (top + bottom) / 2
        degrees = math.degrees(number(entry.get("angle") or 0))
        return turned_box(left, top, (right - left, bottom - top), degrees, middle)
    if kind == "multipolygon":
        parts = [as_mapping(part, "a part") for part in as_list(entry.get("parts"), "parts")]
        if not parts:
            raise ShapeError("a multipolygon without parts")
        return union([_polygon(part, size) for part in parts], size)
    points = as_mapping(entry.get("points"), "points")
    if kind == "rectangle":
        return rectangle(_two(corners(points.get("exterior"))))
    if kind == "polygon":
        return _polygon(points, size)
    raise ShapeError(f"an unknown shape {kind!r:.40}")


def _two(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    if len(points) != 2:
        raise ShapeError(f"a rectangle of {len(points)} points")
    return points


def _polygon(points: Mapping[str, Any], size: Size | None) -> Shape:
    holes = [corners(hole) for hole in as_list(points.get("interior"), "interior")]
    return polygon(corners(points.get("exterior")), holes, size)


def _bitmap(value: Mapping[str, Any], size: Size | None) -> Shape:
    """A mask: base64 of a PNG, which usually is compressed once more, from ``origin`` on."""
    try:
        content = base64.b64decode(value.get("data") or "")
    except (TypeError, ValueError) as error:
        raise ShapeError(f"its mask is not base64: {error}") from None
    with suppress(zlib.error):  # otherwise it is the PNG itself
        content = zlib.decompressobj().decompress(content, LARGEST_PNG)
    ((left, top),) = corners([value.get("origin")])
    return bitmap(decode_png(content), int(left), int(top), size)


FORMAT = FolderFormat("supervisely", ("bbox", "segm"), _recognize, _open)
