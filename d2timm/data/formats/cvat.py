"""CVAT's own XML files: CVAT for images 1.1, and CVAT for video 1.1 with its frames as images.

https://docs.cvat.ai/docs/manual/advanced/xml_format
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import ConfigError
from .base import FolderFormat, Reading, Source
from .building import Annotation, Sample, images_below
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
    union,
)
from .layout import first_files
from .splits import SPLIT_NAMES
from .tool_files import Images, build_with_names, files_of_split, readable, reported, size_of

__all__ = ["FORMAT"]

ROOT_TAG = re.compile(rb"<annotations[\s>]")
SUBSET = re.compile(rb"<image\b[^>]*?\bsubset=\"([^\"]*)\"")
FRAME = re.compile(r"frame_(\d+)$")
NO_OBJECTS = ("points", "polyline", "tag", "skeleton", "cuboid")
IGNORED_TYPES = (*NO_OBJECTS, "attribute")
LARGEST_MASK = 2**28  # pixels

Entry = tuple[str, Mapping[str, str]]  # tag and attributes of a shape


def _recognize(root: Path) -> bool:
    return any(map(_is_cvat, [root] if root.is_file() else first_files(root, ".xml")))


def _is_cvat(file: Path) -> bool:
    if file.suffix.lower() != ".xml":
        return False
    try:
        with file.open("rb") as opened:
            return ROOT_TAG.search(opened.read(4000).replace(b"\0", b"")) is not None
    except OSError:
        return False


def _open(root: Path, split: str, label: str) -> Source | None:
    """Find a split, in this order: by folders and names of XML files, by the subsets of CVAT's project."""
    base = root if root.is_dir() else root.parent
    files, note = files_of_split(root, "val", _is_cvat, by_stem=True)
    subset = ""
    if split == "train" or not files:
        divided = bool(files)
        files, note = files_of_split(root, "train", _is_cvat, by_stem=True)
        subsets = {} if divided else _subsets(files)
        if subsets:
            subset = subsets[split]
            note = f"the splits are the subsets {subsets['train']} and {subsets['val']}; others are not used"
        elif split == "val":
            return None
    if not files:
        raise ConfigError(f"{label}: there is no XML file of CVAT for images 1.1, with the tag <annotations>")
    read = partial(_read, base, files, subset, label)
    return Source(f"{label}: {split}", tuple(files), read, settings=(subset,), note=note)


def _subsets(files: Sequence[Path]) -> dict[str, str]:
    """The subset of each split, if the images are divided into subsets for both."""
    names = {name.decode("utf-8", "replace") for file in files for name in SUBSET.findall(file.read_bytes())}
    by_key = {name.lower(): name for name in sorted(names)}
    found = {
        key: next((by_key[n] for n in options if n in by_key), "") for key, options in SPLIT_NAMES.items()
    }
    return found if all(found.values()) else {}


def _read(root: Path, files: Sequence[Path], subset: str, label: str, reading: Reading) -> dict[str, Any]:
    images = Images(root, reading)
    declared: dict[str, None] = {}
    samples: list[Sample] = []
    for file, name, tree in readable(files, _parse, root, reading.findings):
        declared |= dict.fromkeys(_declared(tree))
        if tree.find("track") is not None:
            samples += _video(tree, file, name, label, reading)
        for index, element in enumerate(tree.iterfind("image"), start=1):
            if not subset or element.get("subset") == subset:
                with reported(reading.findings, f"{name}: image {index}"):
                    samples.append(_image(element, file, name, images, reading))
    return build_with_names(samples, list(declared))


def _parse(file: Path) -> ET.Element:
    try:
        return ET.parse(file).getroot()
    except (OSError, ValueError, LookupError, ET.ParseError) as error:  # LookupError: an unknown encoding
        raise ConfigError(f"{file} is not XML: {error}") from None


def _declared(tree: ET.Element) -> Iterator[str]:
    """Names of the labels that may be objects; parts of skeletons have a parent."""
    for element in tree.iterfind("meta/*/labels/label"):
        name = (element.findtext("name") or "").strip()
        if name and element.find("parent") is None and element.findtext("type") not in IGNORED_TYPES:
            yield name


def _image(element: ET.Element, file: Path, name: str, images: Images, reading: Reading) -> Sample:
    path, subset = element.get("name"), element.get("subset") or ""
    if not path:
        raise ShapeError("it has no name")
    image = images.find([f"images/{subset}/{path}", f"images/{path}", f"{subset}/{path}", path], file.parent)
    size = size_of(element.get("width"), element.get("height"))
    entries = [(child.tag, child.attrib) for child in element]
    return image, size, _objects(entries, f"{name}: {path}", size, reading)


def _video(tree: ET.Element, file: Path, name: str, label: str, reading: Reading) -> list[Sample]:
    """The frames of a video, which CVAT exports as ``images/frame_000000.png``."""
    frames = {
        int(match[1]): image for image in images_below(file.parent) if (match := FRAME.search(image.stem))
    }
    if not frames:
        raise ConfigError(
            f"{label}: {name} has tracks of a video without its frames: export it from CVAT with its images, "
            "as CVAT for video 1.1, or as CVAT for images 1.1"
        )
    entries: dict[int, list[Entry]] = defaultdict(list)
    for number_, track in enumerate(tree.iterfind("track"), start=1):
        for child in track:
            if child.get("outside") == "1" or child.tag == "attribute":
                continue  # the object is not in this frame
            with reported(reading.findings, f"{name}: track {number_}"):
                frame = int(number(child.get("frame"), 0))
                entries[frame].append((child.tag, {"label": track.get("label", ""), **child.attrib}))
    size = size_of(*(tree.findtext(f"meta/*/original_size/{side}") for side in ("width", "height")))
    for frame in sorted(set(entries) - set(frames)):
        reading.findings.add("missing_image", f"{name}: frame {frame}")
    return [
        (image, size, _objects(entries[frame], f"{name}: frame {frame}", size, reading))
        for frame, image in sorted(frames.items())
    ]


def _objects(entries: Sequence[Entry], place: str, size: Size | None, reading: Reading) -> list[Annotation]:
    """The objects of an image; polygons and masks of one group and label are parts of one object."""
    parts: dict[tuple[str, str], list[tuple[str, Shape]]] = defaultdict(list)
    for index, (tag, attributes) in enumerate(entries, start=1):
        source = f"{place}: {tag} {index}"
        with reported(reading.findings, source):
            if tag in NO_OBJECTS:
                raise ShapeError(f"{tag} {attributes.get('label', '')}", "ignored_shape")
            label, shape = label_of(attributes.get("label")), _shape(tag, attributes, size)
            if shape.finding:
                reading.findings.add(shape.finding, f"{source}: {shape.reason or label}")
            group = attributes.get("group_id", "0")
            alone = group in ("", "0") or tag not in ("polygon", "mask")
            parts[label, f"shape {index}" if alone else group].append((source, shape))
    objects = []
    for (label, _), members in parts.items():
        with reported(reading.findings, source := members[0][0]):
            objects.append(to_object(label, union([shape for _, shape in members], size), source))
    return objects


def _shape(tag: str, attributes: Mapping[str, str], size: Size | None) -> Shape:
    def value(name: str) -> float:
        return number(attributes.get(name))

    degrees = number(attributes.get("rotation", 0))
    if tag == "box":
        left, top = value("xtl"), value("ytl")
        width, height = value("xbr") - left, value("ybr") - top
        pivot = (left + width / 2, top + height / 2)
        return turned_box(left, top, (width, height), degrees, pivot)
    if tag == "polygon":
        pairs = [pair.split(",") for pair in attributes.get("points", "").split(";") if pair.strip()]
        return polygon(corners(pairs))
    if tag == "ellipse":
        return ellipse(value("cx"), value("cy"), (value("rx"), value("ry")), degrees)
    if tag == "mask":
        return _mask(attributes, size)
    raise ShapeError(f"an unknown shape {tag!r:.40}")


def _mask(attributes: Mapping[str, str], size: Size | None) -> Shape:
    """A mask, as run lengths, row by row, of the part of the image that it covers."""
    left, top, width, height = (
        int(number(attributes.get(key))) for key in ("left", "top", "width", "height")
    )
    try:
        runs = [int(run) for run in attributes.get("rle", "").split(",")]
    except ValueError:
        raise ShapeError("its rle is not a list of numbers") from None
    if min(runs) < 0 or min(width, height) <= 0 or sum(runs) != width * height or sum(runs) > LARGEST_MASK:
        raise ShapeError(f"its rle has {sum(runs)} pixels, and its box {width}x{height}")
    pixels = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(height, width)
    return bitmap(pixels, left, top, size)


FORMAT = FolderFormat("cvat", ("bbox", "segm"), _recognize, _open)
