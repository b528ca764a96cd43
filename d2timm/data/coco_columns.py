"""Read a COCO file once: later starts map its columns, which lie in the cache, into memory."""

from __future__ import annotations

import itertools
import json
import logging
import mmap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np

from ..utils.json_file import read_json
from .array_cache import Content, cached_arrays
from .columns import Columns, ColumnsPacker

__all__ = ["open_columns"]

logger = logging.getLogger(__name__)

VERSION = 1  # increase it when the same file is read differently, or its columns are stored differently
_T = TypeVar("_T")

BLOCK = 2048  # annotations that are Python objects at a time


class _Image(msgspec.Struct):
    id: int
    height: int
    width: int
    file_name: str = ""
    coco_url: str = ""


class _Reference(msgspec.Struct, gc=False):
    image_id: int
    id: int


class _Annotation(msgspec.Struct, gc=False):
    category_id: int
    bbox: list[float]
    iscrowd: int | bool | None = None
    segmentation: list[list[float]] | dict[str, Any] | None = None
    keypoints: list[float] | None = None
    ignore: Any = 0


class _Content(msgspec.Struct):
    images: list[_Image]
    annotations: list[Any]
    categories: list[dict[str, Any]]


class _RawContent(_Content):
    annotations: list[msgspec.Raw]


def open_columns(file: Path, lvis: bool = False) -> Columns:
    """The columns of a COCO file, from the cache if the file has not changed since they were read.

    The result is that of detectron2's ``load_coco_json``: images in the order of their ids, objects in that
    of the file, class indices in that of the category ids.

    Args:
        file: the COCO file.
        lvis: whether it is one of LVIS, whose images stay in the order of the file, and whose file names are
            the last two parts of ``coco_url``.

    Raises:
        ConfigError: the file cannot be read, or the cache cannot be written.
        ValueError, LookupError: the file has another format, or contradicts itself.
    """
    return Columns(cached_arrays(file, f"coco {VERSION} {lvis}", lambda: _read(file, lvis)))


def _read(file: Path, lvis: bool) -> Content:
    content = _content(file)
    categories = {category["id"]: category for category in content.categories}
    ordered = [categories[number] for number in sorted(categories)]
    classes = {category["id"]: index for index, category in enumerate(ordered)}
    images = {image.id: image for image in content.images}
    order = list(images) if lvis else sorted(images)
    counts, annotations = _grouped(content.annotations, order, file)
    packer = ColumnsPacker()
    for number, count in zip(order, counts, strict=True):
        image = images[number]
        name = "/".join(image.coco_url.split("/")[-2:]) if lvis else image.file_name
        if not name:
            raise ValueError(f"image {number} has no {'coco_url' if lvis else 'file_name'}")
        packer.add_image(number, name, image.height, image.width)
        for annotation in itertools.islice(annotations, count):
            if annotation.ignore:
                raise ValueError(f"annotation of image {number}: detectron2 does not support 'ignore'")
            packer.add_object(annotation, classes[annotation.category_id])
    logger.info("Read %d images in COCO format from %s", len(order), file)
    return packer.arrays(), {"categories": json.dumps(ordered)}


def _grouped(
    annotations: Sequence[Any], order: Sequence[int], file: Path
) -> tuple[list[int], Iterator[_Annotation]]:
    """The number of annotations of each image, and the annotations in the order of the images."""
    references = [r for block in _blocks(annotations) for r in _decode(block, list[_Reference])]
    ids = np.array([reference.id for reference in references], np.int64)
    of = np.array([reference.image_id for reference in references], np.int64)
    places = {number: place for place, number in enumerate(order)}
    ranks = np.array([places.get(number, -1) for number in of.tolist()], np.int64)
    if unknown := int((ranks < 0).sum()):
        logger.warning("%s: %d of %d annotations match no image", file, unknown, len(ranks))
    used = np.flatnonzero(ranks >= 0)
    if len(np.unique(ids[used])) < len(used) and "minival" not in file.name:
        raise ValueError(
            "annotation ids are not unique"
        )  # those of COCO's minival are not, which does not matter
    sequence = used[np.argsort(ranks[used], kind="stable")].tolist()
    counts = np.bincount(ranks[used], minlength=len(order)).tolist()
    blocks = _blocks([annotations[index] for index in sequence])
    return counts, (annotation for block in blocks for annotation in _decode(block, list[_Annotation]))


def _content(file: Path) -> _Content:
    """The lists of a file; annotations stay texts, in a file that the system can drop from memory again."""
    try:
        with file.open("rb") as opened:
            content = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
        return msgspec.json.decode(content, type=_RawContent)
    except (OSError, ValueError):
        # an encoding or numbers that only Python's reader knows, or an error, which is now raised again
        return msgspec.convert(read_json(file), _Content)


def _blocks(annotations: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for start in range(0, len(annotations), BLOCK):
        yield annotations[start : start + BLOCK]


def _decode(block: Sequence[Any], kind: type[_T]) -> _T:
    """Annotations, each a JSON text or parsed by Python's reader, as a list of this kind."""
    if isinstance(block[0], msgspec.Raw):
        return msgspec.json.decode(b"[" + b",".join(block) + b"]", type=kind)
    return msgspec.convert(block, kind)
