"""labelme's JSON files, one for each image (https://github.com/wkentaro/labelme)."""

from __future__ import annotations

import base64
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import ConfigError
from ...utils.json_file import read_json
from ...utils.pillow import image_suffixes
from .base import FolderFormat, Reading, Source
from .building import Annotation, Sample, build_coco
from .geometry import (
    Shape,
    ShapeError,
    Size,
    bitmap,
    corners,
    decode_png,
    ellipse,
    label_of,
    oriented_box,
    polygon,
    rectangle,
    to_object,
    union,
)
from .tool_files import (
    Images,
    any_mentions,
    as_list,
    as_mapping,
    files_of_split,
    is_file,
    readable,
    reported,
    size_of,
)

__all__ = ["FORMAT"]

OTHER_LABELS = ("__ignore__", "_background_")  # of labelme itself, in its lists of labels
LINES = ("line", "linestrip", "point", "points")
ORIENTED = ("oriented_rectangle", "rotation")  # the second is X-AnyLabeling's


def _recognize(root: Path) -> bool:
    return any_mentions(root, ".json", '"shapes"', '"imagePath"')


def _open(root: Path, split: str, label: str) -> Source | None:
    files, note = files_of_split(root, split, lambda file: file.suffix.lower() == ".json")
    if not files:
        if split == "train":
            raise ConfigError(f"{label}: there are no JSON files of labelme")
        return None
    read = partial(_read, root if root.is_dir() else root.parent, files, label)
    return Source(f"{label}: {split}", tuple(files), read, note=note)


def _read(root: Path, files: Sequence[Path], label: str, reading: Reading) -> dict[str, Any]:
    images = Images(root, reading)
    samples: list[Sample] = []
    found = False
    for file, name, content in readable(files, read_json, root, reading.findings):
        if not isinstance(content, dict) or not {"shapes", "imagePath"} & set(content):
            reading.findings.add("other_file", name)
            continue
        found = True
        with reported(reading.findings, name):
            sample = _sample(content, file, name, images, reading)
            samples += [sample] if sample else []
    if not found:
        raise ConfigError(
            f"{label}: none of {len(files)} JSON files is labelme's, with 'shapes' and 'imagePath'"
        )
    return build_coco(samples)


def _sample(
    content: Mapping[str, Any], file: Path, name: str, images: Images, reading: Reading
) -> Sample | None:
    image = _image(content, file, images)
    if content.get("imageData") and not is_file(image):
        reading.findings.add(
            "missing_image",
            f"{name}: {image.name}: only in imageData of the JSON file: decode its base64 into this file",
        )
        return None
    size = size_of(content.get("imageWidth"), content.get("imageHeight"))
    shapes = as_list(content.get("shapes"), "shapes")
    if size is None and any(isinstance(shape, dict) and shape.get("mask") for shape in shapes):
        size = images.size(image)
    return image, size, _objects(shapes, name, size, reading)


def _image(content: Mapping[str, Any], file: Path, images: Images) -> Path:
    """The image that ``imagePath`` names, or else the one beside the file that has its name."""
    value = content.get("imagePath")
    # labelme has written the name of the JSON file itself, when it was opened instead of the image
    path = value if isinstance(value, str) and not value.lower().endswith(".json") else ""
    if path and is_file(named := file.parent / path.replace("\\", "/")):
        return named
    suffixes = sorted(image_suffixes())
    for suffix in (*suffixes, *map(str.upper, suffixes)):
        if is_file(beside := file.with_suffix(suffix)):
            return beside
    return images.find([path or f"{file.stem}.jpg"], file.parent)


def _objects(shapes: Sequence[Any], name: str, size: Size | None, reading: Reading) -> list[Annotation]:
    """The objects of an image; shapes with the same ``group_id`` and label are parts of one."""
    parts: dict[tuple[str, str], list[tuple[int, Shape]]] = defaultdict(list)
    for index, entry in enumerate(shapes, start=1):
        with reported(reading.findings, f"{name}: shape {index}"):
            entry = as_mapping(entry, "it")
            label, shape = label_of(entry.get("label")), _shape(entry, size)
            group = entry.get("group_id")
            parts[label, f"shape {index}" if group is None else repr(group)].append((index, shape))
            if shape.finding:
                reading.findings.add(shape.finding, f"{name}: shape {index}: {shape.reason or label}")
    objects = []
    for (label, _), members in parts.items():
        numbers = ", ".join(str(index) for index, _ in members)
        source = f"{name}: shape{'s' if len(members) > 1 else ''} {numbers}"
        with reported(reading.findings, source):
            objects.append(to_object(label, union([shape for _, shape in members], size), source))
    return objects


def _shape(entry: Mapping[str, Any], size: Size | None) -> Shape:
    kind = entry.get("shape_type") or "polygon"  # older versions draw only polygons
    if entry.get("label") in OTHER_LABELS:
        raise ShapeError(str(entry["label"]), "ignored_shape")
    if kind in LINES:
        raise ShapeError(str(kind), "ignored_shape")
    points = corners(entry.get("points"))
    if kind == "rectangle" and len(points) >= 2:
        return rectangle(points)
    if kind in ORIENTED and len(points) == 4:
        return oriented_box(points)
    if kind == "circle" and len(points) == 2:
        radius = float(np.hypot(points[0][0] - points[1][0], points[0][1] - points[1][1]))
        return ellipse(*points[0], (radius, radius))
    if kind == "polygon":
        return polygon(points)
    if kind == "mask" and len(points) == 2:
        return _mask(entry.get("mask"), points, size)
    raise ShapeError(f"a shape {kind!r:.40} of {len(points)} points")


def _mask(value: Any, points: Sequence[tuple[float, float]], size: Size | None) -> Shape:
    """A mask of pixels, an image in base64 of the part of the image between two corners."""
    try:
        pixels = decode_png(base64.b64decode(value))
    except (TypeError, ValueError) as error:
        raise ShapeError(f"its mask is not base64: {error}") from None
    left, top = (round(coordinate) for coordinate in points[0])
    if all(coordinate.is_integer() for point in points for coordinate in point):
        right, bottom = (int(coordinate) for coordinate in points[1])  # both belong to the mask
        pixels = pixels[: max(bottom - top + 1, 0), : max(right - left + 1, 0)]
    return bitmap(pixels, left, top, size)


FORMAT = FolderFormat("labelme", ("bbox", "segm"), _recognize, _open)
