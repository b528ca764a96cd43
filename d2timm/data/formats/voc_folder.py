"""Sets of one's own classes in the layout of Pascal VOC."""

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
from .to_coco import ANYWHERE, SUFFIXES, Object, keep, lines, to_coco, to_object

__all__ = ["FORMAT", "from_voc"]


def from_voc(root: Path, split: str, told: str) -> Split:
    """Bring a split of a VOC folder into COCO's format.

    ``ImageSets/Main/<split>.txt`` lists the images of a split, ``Annotations`` has an XML file for each,
    ``JPEGImages`` the images. Objects marked as difficult are neither learnt nor counted. The classes are
    those of the training set, in alphabetical order.

    Args:
        root: the folder.
        split: ``train`` or ``val``.
        told: how ``root`` is called in messages.

    Raises:
        ConfigError: what is missing or broken, with its file.
    """
    learnt, xmls = (_xmls(root, part, f"{told}={root}") for part in ("train", split))
    images = {path.stem: path for path in (root / "JPEGImages").glob("*") if path.suffix.lower() in SUFFIXES}
    absent = [xml.stem for xml in xmls if xml.stem not in images]
    if absent:
        raise ConfigError(
            f"{told}={root}: {len(absent)} of {len(xmls)} images of {split}.txt are not in JPEGImages, "
            f"such as {absent[0]}"
        )
    pairs = [(images[xml.stem], xml) for xml in xmls]

    def make() -> dict[str, Any]:
        names = sorted({_name(element, xml) for xml in learnt for element in _elements(xml)})
        return to_coco(pairs, names, partial(_objects, names=names))

    files = (*learnt, *(path for pair in pairs for path in pair))
    return Split(keep((), files, make), ANYWHERE)


def _xmls(root: Path, split: str, told: str) -> list[Path]:
    """The annotations of the images of a split."""
    file = root / "ImageSets" / "Main" / f"{split}.txt"
    if not file.is_file():
        raise ConfigError(f"{told}: {file} is not there; it lists the images of the split, one a line")
    # a second column, as in VOC's lists of a class, says nothing here
    return [root / "Annotations" / f"{line.split()[0]}.xml" for _, line in lines(file)]


def _elements(xml: Path) -> list[ET.Element]:
    """The objects of an image."""
    try:
        return ET.parse(xml).getroot().findall("object")
    except (OSError, ValueError, ET.ParseError) as error:
        raise ConfigError(f"{xml} cannot be read: {error}") from None


def _name(element: ET.Element, xml: Path) -> str:
    name = (element.findtext("name") or "").strip()
    if not name:
        raise ConfigError(f"{xml}: an object has no name")
    return name


def _objects(xml: Path, size: tuple[int, int], names: Sequence[str]) -> list[Object]:
    return [_object(element, names, xml) for element in _elements(xml)]


def _object(element: ET.Element, names: Sequence[str], xml: Path) -> Object:
    name = _name(element, xml)
    if name not in names:
        raise ConfigError(f"{xml}: class {name!r} is none of the training set's, {', '.join(names)}")
    hard = element.findtext("difficult") or "0"
    if hard.strip() not in ("0", "1"):
        raise ConfigError(f"{xml}: the difficult of an object {name} is {hard!r}; it has to be 0 or 1")
    return to_object(names.index(name), _box(element, f"{xml}: an object {name}"), iscrowd=int(hard))


def _box(element: ET.Element, told: str) -> list[float]:
    """Left, top, width and height in pixels."""
    corners = {side: element.findtext(f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax")}
    left, top, right, bottom = map(_number, corners.values())
    if not (-math.inf < left <= right < math.inf and -math.inf < top <= bottom < math.inf):  # nan too
        raise ConfigError(
            f"{told} has the bndbox {corners}; it has to be pixels, xmin <= xmax and ymin <= ymax"
        )
    # VOC counts pixels from 1, both ends included
    return [left - 1, top - 1, right - left + 1, bottom - top + 1]


def _number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan


FORMAT = FolderFormat("voc_folder", ("bbox",), from_voc)
