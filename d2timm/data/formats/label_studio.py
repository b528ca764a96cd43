"""Label Studio's exports JSON and JSON-MIN (https://labelstud.io/guide/export).

A region has coordinates in percent of the sides of its image. One region may have several results with the
same id: its shape, its label and answers to questions about it.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
    ellipse,
    label_of,
    number,
    polygon,
    to_object,
    turned_box,
)
from .layout import first_files
from .tool_files import Images, as_list, as_mapping, files_of_split, mentions, readable, reported, size_of

__all__ = ["FORMAT"]

MARK = '"original_width"'
UPLOAD_PREFIX = re.compile(r"^[0-9a-f]{8}-")  # which Label Studio puts before the name of an uploaded file
LABELS = ("rectanglelabels", "polygonlabels", "ellipselabels", "brushlabels", "labels")
OTHER_LABELS = ("keypointlabels", "vectorlabels", "videorectangle")
LARGEST_MASK = 2**30  # values, four for each pixel


def _recognize(root: Path) -> bool:
    files = [root] if root.is_file() else first_files(root, ".json", limit=20)
    return any(map(_is_export, files))


def _is_export(file: Path) -> bool:
    is_json = file.suffix.lower() == ".json"
    return (
        is_json
        and mentions(file, MARK)
        and any(mentions(file, f'"{label}"') for label in (*LABELS, *OTHER_LABELS))
    )


def _open(root: Path, split: str, label: str) -> Source | None:
    files, note = files_of_split(root, split, _is_export, by_stem=True)
    if not files:
        if split == "train":
            raise ConfigError(f"{label}: there is no JSON or JSON-MIN export of Label Studio with regions")
        return None
    read = partial(_read, root if root.is_dir() else root.parent, files)
    return Source(f"{label}: {split}", tuple(files), read, note=note)


def _read(root: Path, files: Sequence[Path], reading: Reading) -> dict[str, Any]:
    images, findings = Images(root, reading), reading.findings
    latest: dict[str, tuple[str, str, Sequence[Any], list[str], Path]] = {}
    for file, name, content in readable(files, read_json, root, findings):
        for index, task in enumerate(content if isinstance(content, list) else [content], start=1):
            place = f"{name}: task {task['id']}" if _has_id(task) else f"{name}: task number {index}"
            with reported(findings, place):
                names, results = _task(as_mapping(task, "it"), place, reading)
                for time, regions in results:
                    own = (time, place, regions, names, file.parent)
                    former = latest.get(names[0], own)
                    if former is not own:
                        findings.add("other_annotator", min(former, own, key=itemgetter(0))[1])
                    latest[names[0]] = max(own, former, key=itemgetter(0))
    samples: list[Sample] = []
    for _, place, regions, names, folder in latest.values():
        image = images.find([variant for name in names for variant in _variants(name)], folder)
        with reported(findings, place):
            samples.append(_sample(regions, image, place, images, reading))
    return build_coco(samples)


def _has_id(task: Any) -> bool:
    return isinstance(task, dict) and isinstance(task.get("id"), (int, str))


def _task(
    task: Mapping[str, Any], place: str, reading: Reading
) -> tuple[list[str], list[tuple[str, Sequence[Any]]]]:
    """The names of the image of a task, and the (time, regions) of its annotations."""
    if isinstance(task.get("task"), dict) and "result" in task:  # one annotation, as storages receive it
        task = {**task["task"], "annotations": [task]}
    annotations = task.get("annotations", task.get("completions"))
    if annotations is None:  # JSON-MIN: regions are in fields with the names of their controls
        fields = (value for value in task.values() if isinstance(value, list))
        regions = [region for value in fields for region in value if isinstance(region, dict)]
        return _image_names(task), [(_time(task), [_full(region) for region in regions])]
    found = []
    for entry in as_list(annotations, "annotations"):
        entry = as_mapping(entry, "an annotation")
        if not entry.get("was_cancelled") and not entry.get("skipped"):
            found.append((_time(entry), as_list(entry.get("result"), "result")))
    names = _image_names(as_mapping(task.get("data"), "data"), task.get("file_upload"))
    if not found:
        reading.findings.add("unlabelled_file", f"{place}: {names[0]}")
    return names, found


def _full(region: dict[str, Any]) -> dict[str, Any]:
    """A region of JSON-MIN as in JSON; those that are drawn at the same place are results of one region."""
    place = [region.get(key) for key in ("x", "y", "width", "height", "rotation", "points", "radiusX", "rle")]
    return {**region, "id": repr(place), "value": region}


def _time(entry: Mapping[str, Any]) -> str:
    """When an annotation was made, as text that can be compared."""
    return str(entry.get("updated_at") or entry.get("created_at") or "")


def _image_names(data: Mapping[str, Any], upload: Any = None) -> list[str]:
    texts = {key: value for key, value in data.items() if isinstance(value, str) and value}
    images = {
        key: value for key, value in texts.items() if _is_image(value) and not value.startswith("data:")
    }
    named = {key: value for key, value in texts.items() if key.lower() in ("image", "img")}
    names = [*named.values(), *images.values()]
    if len(images) > 1 and not named:
        raise ShapeError(f"several images: {', '.join(images)}")
    if isinstance(upload, str) and upload:
        names.append(upload)
    if not names:
        raise ShapeError("no image in its data")
    if names[0].startswith("data:"):
        raise ShapeError("the picture is only in the export: save it as a file", "missing_image")
    return list(dict.fromkeys(names))


def _is_image(name: str) -> bool:
    end = name.split("?d=")[-1].split("?")[0]
    return Path(end).suffix.lower() in image_suffixes()


def _variants(name: str) -> Iterator[str]:
    """A name, and the name that the file had before it was uploaded."""
    yield name
    folder, slash, last = name.rpartition("/")
    if UPLOAD_PREFIX.match(last):
        yield folder + slash + UPLOAD_PREFIX.sub("", last)


def _sample(results: Sequence[Any], image: Path, place: str, images: Images, reading: Reading) -> Sample:
    regions: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for index, result in enumerate(results, start=1):
        with reported(reading.findings, f"{place}: result {index}"):
            result = as_mapping(result, "it")
            key = result.get("id")
            regions[key if isinstance(key, str) else f"number {index}"].append(result)
    sizes = [size_of(r.get("original_width"), r.get("original_height")) for r in chain(*regions.values())]
    size = next(filter(None, sizes), None) or images.size(image)
    objects: list[Annotation] = []
    for key, members in regions.items():
        source = f"{place}: region {key}"
        with reported(reading.findings, source):
            objects.append(_object(members, size, source, reading))
    return image, size, objects


def _object(
    results: Sequence[Mapping[str, Any]], size: Size | None, source: str, reading: Reading
) -> Annotation:
    values = [
        as_mapping(result.get("value"), "value") for result in results if result.get("type") != "relation"
    ]
    labels = [as_list(value[key], key) for value in values for key in LABELS if key in value]
    drawn = next((value for value in values if _is_drawn(value)), None)
    if drawn is None or (not labels and not any(_names_a_shape(result) for result in results)):
        raise ShapeError(", ".join(str(key) for value in values for key in value)[:60], "ignored_shape")
    names = list(dict.fromkeys(label_of(name) for found in labels for name in found))
    label = label_of(names[0] if names else None)
    if any(number(result.get("image_rotation") or 0) % 360 for result in results):
        raise ShapeError("it is drawn on an image that was turned in Label Studio: turn the file instead")
    if size is None:
        raise ShapeError("the size of the image is not known")
    shape = _shape(drawn, size)
    reading.findings.add("further_class", *(f"{source}: {name}" for name in names[1:]))
    if shape.finding:
        reading.findings.add(shape.finding, f"{source}: {shape.reason or label}")
    return to_object(label, shape, source)


def _is_drawn(value: Mapping[str, Any]) -> bool:
    """Whether a value is a box, polygon, ellipse or mask."""
    fields = ({"width", "height"}, {"points"}, {"radiusX"}, {"rle"})
    return any(names <= set(value) for names in fields) and not set(OTHER_LABELS) & set(value)


def _names_a_shape(result: Mapping[str, Any]) -> bool:
    """Whether a result is a region without its label, which is missing, and not an answer about a region."""
    value = result.get("value")
    answers = ("choices", "text", "rating", "number", "taxonomy", "datetime")
    return isinstance(value, dict) and not any(key in value for key in answers)


def _shape(value: Mapping[str, Any], size: Size) -> Shape:
    def pixels(key: str, side: int) -> float:
        return number(value.get(key)) * size[side] / 100

    degrees = number(value.get("rotation") or 0)
    if "rle" in value:
        return bitmap(_decode(value["rle"], size), 0, 0, size)
    if "points" in value:
        return polygon([(x * size[0] / 100, y * size[1] / 100) for x, y in corners(value["points"])])
    left, top = pixels("x", 0), pixels("y", 1)
    if "radiusX" in value:
        return ellipse(left, top, (pixels("radiusX", 0), pixels("radiusY", 1)), degrees)
    sides = pixels("width", 0), pixels("height", 1)
    return turned_box(left, top, sides, degrees, pivot=(left, top))


def _decode(rle: Any, size: Size) -> NDArray[np.bool_]:
    """A mask (H, W) from Label Studio's run lengths, a stream of bits of an image (H, W, 4).

    The stream has a header: 32 bits for the number of values, 5 for the bits of a value - 1, and 4 times 4
    bits for the bits of a length - 1. Then follow runs: a bit that is 1 if all values of the run are equal, 2
    bits for the choice among the four lengths, the length - 1, and the value, or all values. The mask is the
    alpha channel. See label_studio_sdk/converter/brush.py in https://github.com/HumanSignal/label-studio-sdk.
    """
    try:
        bits = "".join(f"{byte:08b}" for byte in bytes(rle))
    except (TypeError, ValueError):
        raise ShapeError("its rle is not a list of bytes") from None
    position = 0

    def read(count: int) -> int:
        nonlocal position
        position += count
        if position > len(bits):
            raise ShapeError("its rle ends too early")
        return int(bits[position - count : position], 2)

    total = read(32)
    if total != 4 * size[0] * size[1] or total > LARGEST_MASK:
        raise ShapeError(f"its rle has {total} values, and the image {size[0]}x{size[1]} pixels")
    width, lengths = read(5) + 1, [read(4) + 1 for _ in range(4)]
    values = np.zeros(total, bool)
    index = 0
    while index < total:
        same, length = read(1), read(lengths[read(2)]) + 1
        if same:
            values[index : index + length] = read(width) > 0
        else:
            values[index : index + length] = [read(width) > 0 for _ in range(min(length, total - index))]
        index += length
    return values.reshape(size[1], size[0], 4)[..., 3]


FORMAT = FolderFormat("label_studio", ("bbox", "segm"), _recognize, _open)
