"""Conversion of other formats, or of several COCO files, to one COCO file in the cache.

    images, labels -> fingerprint of their names, times and sizes -> the file, unless it is in the cache

A change of any source file leads to another fingerprint and so to a new file. Files are written atomically,
so that another process never reads an incomplete one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from ...errors import ConfigError
from ...utils.files import atomic_write, cache_root
from ..paths import Split
from . import coco_file

__all__ = [
    "IMAGE_ROOT",
    "SUFFIXES",
    "Annotation",
    "Pair",
    "build_coco",
    "cached_coco_file",
    "merge",
    "read_lines",
    "to_annotation",
]

VERSION = 2  # increase it when the code converts the same files differently
EXIF_ORIENTATION = 0x0112
TRANSPOSED = range(5, 9)  # EXIF orientations that swap width and height
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
IMAGE_ROOT = Path("/")  # the image folder of a converted split, whose file names are absolute paths

Annotation = dict[str, Any]  # in COCO's format, without its own id and without the id of its image
Pair = tuple[Path, Path]  # an image and the file with its annotations


def merge(jsons: Sequence[Path], images: Sequence[Path], label: str) -> Split:
    """Merge several COCO files into one.

    Args:
        jsons: the files, whose categories must have the same names in the order of their ids.
        images: the image folder of each file.
        label: the name of the files in error messages.

    Raises:
        ConfigError: a file is missing or broken, or the categories differ.
    """
    if len(jsons) != len(images):
        raise ConfigError(f"{label}: {len(jsons)} annotation files but {len(images)} image folders")
    missing = [file for file in jsons if not file.is_file()]
    if missing:
        raise ConfigError(f"{label}: {missing[0]}: no such file")
    pairs = list(zip(jsons, images, strict=True))
    folders = [folder.absolute() for folder in images]
    return Split(cached_coco_file(folders, jsons, lambda: _merge_content(pairs, label)), IMAGE_ROOT)


def cached_coco_file(
    settings: Iterable[object], files: Iterable[Path], build: Callable[[], dict[str, Any]]
) -> Path:
    """Return a COCO file in the cache, which is built and written unless it exists.

    Args:
        settings: everything except files that the content depends on, such as class names.
        files: the files that the content depends on; they may be missing.
        build: returns the content.

    Raises:
        ConfigError: the cache cannot be written.
    """
    digest = hashlib.sha256(f"{VERSION}\n".encode())
    for text in (*settings, *map(_file_state, files)):
        digest.update(f"{text}\n".encode())
    file = cache_root() / f"coco-{digest.hexdigest()[:16]}.json"
    if not file.is_file():
        content = json.dumps(build())
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(file) as partial:
                partial.write_text(content)
        except OSError as error:
            raise ConfigError(
                f"{file} cannot be written ({error.strerror}): "
                "set D2TIMM_CACHE to a folder that can be written"
            ) from None
    return file


def build_coco(
    pairs: Sequence[Pair],
    names: Sequence[str],
    read: Callable[[Path, tuple[int, int]], Iterable[Annotation]],
) -> dict[str, Any]:
    """Build the content of a COCO file.

    Args:
        pairs: the images and their annotation files.
        names: names of the classes, whose ids in the file start at 1.
        read: returns the annotations; called with an annotation file and the (width, height) of its image.
    """
    images: list[dict[str, Any]] = []
    annotations: list[Annotation] = []
    for image_id, (image, labels) in enumerate(pairs, start=1):
        width, height = _image_size(image)
        path = str(image.absolute())
        images.append({"id": image_id, "file_name": path, "width": width, "height": height})
        for annotation in read(labels, (width, height)):
            annotations.append({"id": len(annotations) + 1, "image_id": image_id, **annotation})
    categories = [{"id": i, "name": name} for i, name in enumerate(names, start=1)]
    return {"images": images, "annotations": annotations, "categories": categories}


def to_annotation(class_index: int, box: Sequence[float], **more: Any) -> Annotation:
    """An annotation in COCO's format.

    Args:
        class_index: from 0.
        box: (left, top, width, height) in pixels.
        more: further fields, which may replace ``area`` and ``iscrowd``.
    """
    return {"category_id": class_index + 1, "bbox": list(box), "area": box[2] * box[3], "iscrowd": 0, **more}


def read_lines(file: Path) -> list[tuple[int, str]]:
    """The lines of a text file that are not blank, each with its line number from 1.

    Raises:
        ConfigError: the file cannot be read.
    """
    try:
        text = file.read_text("utf-8-sig")  # some editors begin a file with a byte order mark
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file} cannot be read as text: {error}") from None
    return [(i, line.strip()) for i, line in enumerate(text.splitlines(), start=1) if line.strip()]


def _merge_content(pairs: Sequence[Pair], label: str) -> dict[str, Any]:
    first = pairs[0][0]
    merged: dict[str, Any] = {
        "images": [],
        "annotations": [],
        "categories": coco_file.read_coco(first)["categories"],
    }
    for file, folder in pairs:
        coco = coco_file.read_coco(file)
        category_ids = _category_ids(coco, merged, f"{label}: {file}", first)
        old_ids = [image["id"] for image in coco["images"]]
        image_ids = {old: new for new, old in enumerate(old_ids, start=len(merged["images"]) + 1)}
        for image in coco["images"]:
            path = str((folder / image["file_name"]).absolute())
            merged["images"].append({**image, "id": image_ids[image["id"]], "file_name": path})
        for annotation in coco["annotations"]:
            if annotation["image_id"] in image_ids:
                new_ids = {
                    "id": len(merged["annotations"]) + 1,
                    "image_id": image_ids[annotation["image_id"]],
                    "category_id": category_ids[annotation["category_id"]],
                }
                merged["annotations"].append({**annotation, **new_ids})
    return merged


def _category_ids(coco: dict[str, Any], reference: dict[str, Any], label: str, first: Path) -> dict[int, int]:
    """Map the category ids of a file to the ids in the first file.

    Raises:
        ConfigError: the categories differ, or an annotation has another category.
    """
    own, shared = (sorted(c["categories"], key=lambda category: category["id"]) for c in (coco, reference))
    for field in ("name", "keypoints"):
        values, expected = ([category.get(field) for category in side] for side in (own, shared))
        if values != expected:
            raise ConfigError(f"{label}: {field!r} of its categories is {values}, but {expected} in {first}")
    ids = {category["id"]: same["id"] for category, same in zip(own, shared, strict=True)}
    unknown = [a for a in coco["annotations"] if a["category_id"] not in ids]
    if unknown:
        raise ConfigError(
            f"{label}: annotation {unknown[0]['id']} has category_id {unknown[0]['category_id']}, "
            f"but the categories have the ids {', '.join(map(str, ids))}"
        )
    return ids


def _file_state(file: Path) -> str:
    """A text that changes when the file changes."""
    try:
        state = file.stat()
    except (OSError, ValueError):
        return f"{file.absolute()} is missing"
    return f"{file.absolute()} {state.st_mtime_ns} {state.st_size}"


def _image_size(file: Path) -> tuple[int, int]:
    """Width and height of an image after its EXIF orientation is applied; reads only the header."""
    try:
        with Image.open(file) as image:
            width, height = image.size
            transposed = image.getexif().get(EXIF_ORIENTATION) in TRANSPOSED
            return (height, width) if transposed else (width, height)
    except (OSError, ValueError) as error:  # UnidentifiedImageError is an OSError
        raise ConfigError(f"{file} cannot be read as an image: {error}") from None
