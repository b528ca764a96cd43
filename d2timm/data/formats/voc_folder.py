"""Folders with a user's own classes in the layout of Pascal VOC."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ...errors import ConfigError
from ..paths import Split
from .base import FolderFormat
from .to_coco import (
    IMAGE_ROOT,
    SUFFIXES,
    Annotation,
    build_coco,
    cached_coco_file,
    read_lines,
    to_annotation,
)

__all__ = ["FORMAT", "from_voc"]


def from_voc(root: Path, split: str, label: str) -> Split:
    """Convert a split of a VOC folder to COCO's format.

    ``ImageSets/Main/<split>.txt`` lists the images of a split, ``Annotations`` has an XML file for each,
    ``JPEGImages`` contains the images. Objects marked as difficult are used neither in training nor in
    evaluation. The classes come from the training split, in alphabetical order.

    Args:
        root: the folder.
        split: ``train`` or ``val``.
        label: the name of ``root`` in error messages.

    Raises:
        ConfigError: a file is missing or broken.
    """
    train_xmls, xmls = (_xmls(root, part, f"{label}={root}") for part in ("train", split))
    images = {path.stem: path for path in (root / "JPEGImages").glob("*") if path.suffix.lower() in SUFFIXES}
    missing = [xml.stem for xml in xmls if xml.stem not in images]
    if missing:
        raise ConfigError(
            f"{label}={root}: {len(missing)} of {len(xmls)} images of {split}.txt are missing in JPEGImages, "
            f"such as {missing[0]}"
        )
    pairs = [(images[xml.stem], xml) for xml in xmls]

    def build() -> dict[str, Any]:
        names = sorted({_class_name(element, xml) for xml in train_xmls for element in _elements(xml)})
        return build_coco(pairs, names, partial(_annotations, names=names))

    files = (*train_xmls, *(path for pair in pairs for path in pair))
    return Split(cached_coco_file((), files, build), IMAGE_ROOT)


def _xmls(root: Path, split: str, label: str) -> list[Path]:
    """The annotation files of a split."""
    file = root / "ImageSets" / "Main" / f"{split}.txt"
    if not file.is_file():
        raise ConfigError(f"{label}: {file}: no such file; it lists the images of the split, one per line")
    # VOC's image lists per class have a second column, which is ignored
    return [root / "Annotations" / f"{line.split()[0]}.xml" for _, line in read_lines(file)]


def _elements(xml: Path) -> list[ET.Element]:
    """The objects of an image."""
    try:
        return ET.parse(xml).getroot().findall("object")
    except (OSError, ValueError, ET.ParseError) as error:
        raise ConfigError(f"{xml} cannot be read: {error}") from None


def _class_name(element: ET.Element, xml: Path) -> str:
    name = (element.findtext("name") or "").strip()
    if not name:
        raise ConfigError(f"{xml}: an object has no name")
    return name


def _annotations(xml: Path, size: tuple[int, int], names: Sequence[str]) -> list[Annotation]:
    return [_annotation(element, names, xml) for element in _elements(xml)]


def _annotation(element: ET.Element, names: Sequence[str], xml: Path) -> Annotation:
    name = _class_name(element, xml)
    if name not in names:
        raise ConfigError(f"{xml}: class {name!r} is not in the training split, which has {', '.join(names)}")
    difficult = element.findtext("difficult") or "0"
    if difficult.strip() not in ("0", "1"):
        raise ConfigError(f"{xml}: difficult of an object {name} is {difficult!r}, but must be 0 or 1")
    return to_annotation(names.index(name), _box(element, f"{xml}: an object {name}"), iscrowd=int(difficult))


def _box(element: ET.Element, label: str) -> list[float]:
    """(left, top, width, height) in pixels."""
    corners = {side: element.findtext(f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax")}
    left, top, right, bottom = map(_number, corners.values())
    if not (
        -math.inf < left <= right < math.inf and -math.inf < top <= bottom < math.inf
    ):  # also false for nan
        raise ConfigError(f"{label} has the bndbox {corners}: use pixels with xmin <= xmax and ymin <= ymax")
    # pixels in VOC start at 1, and the corners belong to the box
    return [left - 1, top - 1, right - left + 1, bottom - top + 1]


def _number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan


FORMAT = FolderFormat("voc_folder", ("bbox",), from_voc)
