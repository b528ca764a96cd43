"""Annotation files of Pascal VOC, as VOC itself and the tools that write its format fill them."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...utils.text import one_line
from ..checks.findings import Findings
from ..checks.masks import box_of
from ..checks.values import as_flag, as_number
from .building import Annotation, to_annotation
from .geometry import Shape, oriented_box, to_object, turned_box
from .layout import read_bytes

__all__ = ["Described", "read_xml"]

DECLARATION = re.compile(r"\s*<\?xml[^>]*\?>")
ENCODING = re.compile(rb"\s*<\?xml[^>]*encoding\s*=\s*[\"']([\w.-]+)")
SIDES = ("xmin", "ymin", "xmax", "ymax")
#: The corners of an oriented box in DIOR's files
NAMED_CORNERS = [
    f"{axis}_{corner}" for corner in ("left_top", "right_top", "right_bottom", "left_bottom") for axis in "xy"
]


@dataclass(frozen=True)
class Described:
    """What an annotation file describes.

    Attributes:
        names: names of the image, which may be paths of another machine; the likeliest first.
        size: (width, height) of the image in pixels; None if the file does not say it.
        objects: the objects, whose categories are names of classes.
    """

    names: tuple[str, ...]
    size: tuple[float, float] | None
    objects: list[Annotation]


def read_xml(file: Path, name: str, listed: bool, findings: Findings) -> Described:
    """Read an annotation file.

    Boxes follow one of two conventions. In VOC itself, pixels start at 1 and the last ones belong to the box:
    its left edge is ``xmin - 1``, its right edge ``xmax``. labelImg, CVAT and labelme write the edges:
    ``xmin`` and ``xmax``. VOC's convention holds if ``source/database`` names VOC, or if the file does not
    name a database and stands in a folder with VOC's lists; labelImg and CVAT write ``Unknown``. Where a tool
    means the other convention, or shifts both edges as Roboflow does, an edge is wrong by one pixel.

    Args:
        file: the file.
        name: its name in findings.
        listed: whether the folder has VOC's lists of a training and a validation split.
        findings: receives objects that cannot be read, oriented boxes and difficult objects.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not an annotation file; the message says why, in one line.
    """
    root = _parse(read_bytes(file))
    if root.tag.lower() != "annotation":
        raise ValueError(f"its root is <{root.tag}>, not <annotation>")
    database = (root.findtext("source/database") or "").strip().lower()
    first = 1 if "voc" in database or (listed and not database) else 0
    objects = []
    oriented = False
    for number, element in enumerate(root.iter("object"), start=1):
        if (element.findtext("deleted") or "").strip() == "1":  # LabelMe keeps what a user has deleted
            continue
        source = f"{name} object {number}"
        try:
            annotation, turned = _annotation(element, source, first, findings)
        except ValueError as error:
            findings.add("invalid_annotation", f"{source}: {error}")
            continue
        objects.append(annotation)
        oriented |= turned
    findings.add("oriented_box", *([name] if oriented else []))
    names = (root.findtext(key) or "" for key in ("filename", "path"))
    return Described(tuple(filter(None, map(str.strip, names))), _size(root), objects)


def _parse(content: bytes) -> ET.Element:
    try:
        return ET.fromstring(content)
    except (ET.ParseError, ValueError, LookupError) as error:
        reason = one_line(error) or "no XML"
    # Python's parser reads no multi-byte encodings such as GBK, believes a declaration that is wrong, and
    # refuses blanks before it
    declared = ENCODING.match(content)
    for encoding in ([declared[1].decode()] if declared else []) + ["utf-8-sig"]:
        try:
            return ET.fromstring(DECLARATION.sub("", content.decode(encoding), count=1).strip())
        except (ET.ParseError, ValueError, LookupError):  # the text is not of this encoding
            continue
    raise ValueError(reason)


def _size(root: ET.Element) -> tuple[float, float] | None:
    width, height = (as_number(root.findtext(f"size/{side}")) for side in ("width", "height"))
    return (width, height) if width and height and min(width, height) > 0 else None


def _annotation(element: ET.Element, source: str, first: int, findings: Findings) -> tuple[Annotation, bool]:
    """An object, and whether it is an oriented box.

    Args:
        element: ``<object>``.
        source: its name in findings.
        first: the number of an image's first pixel, 0 or 1.
        findings: receives masks that cannot be read.

    Raises:
        ValueError: it has no class or no box.
    """
    name = (element.findtext("name") or "").strip()
    if not name:
        raise ValueError("it has no name")
    difficult = {"ignore": int(bool(as_flag(element.findtext("difficult"))))}
    box = _box(element, first)
    if (shape := _oriented(element, box)) is not None:
        return {**to_object(name, shape, source), **difficult}, shape.finding == "oriented_box"
    elements = [polygon for polygon in element.findall("polygon") if len(polygon)]
    polygons = [points for polygon in elements if (points := _points(polygon))]
    if box is None and (not elements or len(polygons) < len(elements)):
        raise ValueError(f"{name} has neither a bndbox nor a polygon of numbers")
    if len(polygons) < len(elements):
        findings.add("invalid_mask", f"{source}: {name} has a polygon that is not of numbers")
        polygons = []
    mask = {"segmentation": polygons} if polygons else {}
    return to_annotation(name, box or box_of(polygons), source=source, **mask, **difficult), False


def _box(element: ET.Element, first: int) -> list[float] | None:
    """(left, top, width, height) of the upright box; None if there is none."""
    bndbox = element.find("bndbox")
    if bndbox is None:
        return None
    corners = {side: bndbox.findtext(side) for side in SIDES}
    left, top, right, bottom = _numbers(corners.values(), f"bndbox {corners}")
    if left > right or top > bottom:
        raise ValueError(f"bndbox {corners}: use pixels with xmin <= xmax and ymin <= ymax")
    # a corner of 0 shows that the tool's first pixel is 0 nevertheless
    left, top = (value - first if value >= first else value for value in (left, top))
    return [left, top, right - left, bottom - top]


def _oriented(element: ET.Element, box: Sequence[float] | None) -> Shape | None:
    """The oriented box of an object, if it has one; ``box`` is its upright one."""
    robndbox = element.find("robndbox")
    if robndbox is not None and robndbox.find(NAMED_CORNERS[0]) is not None:
        values = _numbers(map(robndbox.findtext, NAMED_CORNERS), "robndbox: a corner")
        return oriented_box(list(zip(values[::2], values[1::2], strict=True)))
    if robndbox is not None:  # roLabelImg: radians, clockwise
        texts = [robndbox.findtext(key) for key in ("cx", "cy", "w", "h", "angle")]
        x, y, w, h, angle = _numbers(texts, f"robndbox {texts}")
        if abs(angle) > 2 * math.pi:
            raise ValueError(f"robndbox has the angle {angle:g}, but angles are radians, 0 to 2 pi")
        return turned_box(x - w / 2, y - h / 2, (w, h), math.degrees(angle), (x, y))
    attributes = {a.findtext("name"): a.findtext("value") for a in element.iterfind("attributes/attribute")}
    degrees = as_number(attributes.get("rotation"))  # CVAT: the upright rectangle, and its rotation
    if box and degrees:
        left, top, w, h = box
        return turned_box(left, top, (w, h), degrees, (left + w / 2, top + h / 2))
    return None


def _points(polygon: ET.Element) -> list[float]:
    """x0, y0, … of Roboflow's ``<x1>``, ``<y1>``, … or LabelMe's ``<pt>``; [] if one is not a number."""
    pairs = [(p.findtext("x"), p.findtext("y")) for p in polygon if p.find("x") is not None]
    if not pairs:
        numbers = sorted(int(child.tag[1:]) for child in polygon if re.fullmatch(r"x\d+", child.tag))
        pairs = [(polygon.findtext(f"x{i}"), polygon.findtext(f"y{i}")) for i in numbers]
    try:
        return _numbers((text for pair in pairs for text in pair), "polygon")
    except ValueError:
        return []


def _numbers(texts: Iterable[str | None], label: str) -> list[float]:
    """Finite numbers.

    Raises:
        ValueError: a text is missing or no number.
    """
    numbers = [as_number(text) for text in texts]
    if None in numbers:
        raise ValueError(f"{label}: not all values are numbers")
    return [number for number in numbers if number is not None]
