"""Sets of a user's own in other formats, or of several files, brought into one COCO file in the cache.

    images, labels -> fingerprint of their names, times and sizes -> the file, made unless it is there

So a file is made anew when one of those that it is made of changes, and never read while it is made.
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
from ..formats import coco_file
from ..paths import Split

__all__ = ["SUFFIXES", "Object", "Pair", "keep", "lines", "merge", "to_coco", "to_object"]

VERSION = 2  # raise it when the code makes something else of the same files
EXIF_ORIENTATION = 0x0112
TURNED = range(5, 9)  # orientations in which width and height change places
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
ANYWHERE = Path("/")  # the folder of images that are named by whole paths

Object = dict[str, Any]  # of COCO's annotations, without its own id and that of its image
Pair = tuple[Path, Path]  # an image, and the file that describes its objects


def merge(jsons: Sequence[Path], images: Sequence[Path], told: str) -> Split:
    """Several COCO files as one.

    Args:
        jsons: the files; their categories have the same names in the order of their ids.
        images: the folder of each file's images.
        told: how the files are called in messages.
    """
    if len(jsons) != len(images):
        raise ConfigError(f"{told}: {len(jsons)} files of annotations and {len(images)} folders of images")
    missing = [file for file in jsons if not file.is_file()]
    if missing:
        raise ConfigError(f"{told}: {missing[0]}: no such file")
    pairs = list(zip(jsons, images, strict=True))
    folders = [folder.absolute() for folder in images]
    return Split(keep(folders, jsons, lambda: _merged(pairs, told)), ANYWHERE)


def keep(said: Iterable[object], files: Iterable[Path], make: Callable[[], dict[str, Any]]) -> Path:
    """A COCO file in the cache, made unless it is there.

    Args:
        said: what matters beside the files, such as names of classes.
        files: those that it is made of; they may be missing.
        make: gives its content.

    Raises:
        ConfigError: the cache cannot be written.
    """
    digest = hashlib.sha256(f"{VERSION}\n".encode())
    for text in (*said, *map(_state, files)):
        digest.update(f"{text}\n".encode())
    file = cache_root() / f"coco-{digest.hexdigest()[:16]}.json"
    if not file.is_file():
        content = json.dumps(make())
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


def to_coco(
    pairs: Sequence[Pair],
    names: Sequence[str],
    read: Callable[[Path, tuple[int, int]], Iterable[Object]],
) -> dict[str, Any]:
    """The content of a COCO file.

    Args:
        pairs: images and what describes their objects.
        names: of the classes, whose ids in the file count from 1.
        read: gives the objects, of such a file and the width and height of the image.
    """
    images: list[dict[str, Any]] = []
    annotations: list[Object] = []
    for number, (image, labels) in enumerate(pairs, start=1):
        width, height = _size(image)
        path = str(image.absolute())
        images.append({"id": number, "file_name": path, "width": width, "height": height})
        for found in read(labels, (width, height)):
            annotations.append({"id": len(annotations) + 1, "image_id": number, **found})
    categories = [{"id": i, "name": name} for i, name in enumerate(names, start=1)]
    return {"images": images, "annotations": annotations, "categories": categories}


def to_object(number: int, box: Sequence[float], **more: Any) -> Object:
    """An object of a class, which counts from 0, and a box (left, top, width, height) in pixels."""
    return {"category_id": number + 1, "bbox": list(box), "area": box[2] * box[3], "iscrowd": 0, **more}


def lines(file: Path) -> list[tuple[int, str]]:
    """The lines of a text file that are not blank, with their numbers.

    Raises:
        ConfigError: a file that cannot be read.
    """
    try:
        text = file.read_text("utf-8-sig")  # some editors begin a file with a mark
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file} cannot be read as text: {error}") from None
    return [(i, line.strip()) for i, line in enumerate(text.splitlines(), start=1) if line.strip()]


def _merged(pairs: Sequence[Pair], told: str) -> dict[str, Any]:
    first = pairs[0][0]
    merged: dict[str, Any] = {
        "images": [],
        "annotations": [],
        "categories": coco_file.read_coco(first)["categories"],
    }
    for file, folder in pairs:
        coco = coco_file.read_coco(file)
        kinds = _same_categories(coco, merged, f"{told}: {file}", first)
        ids = [image["id"] for image in coco["images"]]
        numbers = {number: new for new, number in enumerate(ids, start=len(merged["images"]) + 1)}
        for image in coco["images"]:
            path = str((folder / image["file_name"]).absolute())
            merged["images"].append({**image, "id": numbers[image["id"]], "file_name": path})
        for annotation in coco["annotations"]:
            if annotation["image_id"] in numbers:
                new = {
                    "id": len(merged["annotations"]) + 1,
                    "image_id": numbers[annotation["image_id"]],
                    "category_id": kinds[annotation["category_id"]],
                }
                merged["annotations"].append({**annotation, **new})
    return merged


def _same_categories(coco: dict[str, Any], other: dict[str, Any], told: str, first: Path) -> dict[int, int]:
    """Ids of a file's categories -> those of the first file's."""
    own, shared = (sorted(c["categories"], key=lambda category: category["id"]) for c in (coco, other))
    for field in ("name", "keypoints"):
        values, wanted = ([category.get(field) for category in side] for side in (own, shared))
        if values != wanted:
            raise ConfigError(f"{told}: {field!r} of its categories are {values}, in {first} {wanted}")
    kinds = {category["id"]: same["id"] for category, same in zip(own, shared, strict=True)}
    strange = [a for a in coco["annotations"] if a["category_id"] not in kinds]
    if strange:
        raise ConfigError(
            f"{told}: the annotation of id {strange[0]['id']} has category_id {strange[0]['category_id']}, "
            f"which is none of its categories, {', '.join(map(str, kinds))}"
        )
    return kinds


def _state(file: Path) -> str:
    """What tells whether a file is another than it was."""
    try:
        state = file.stat()
    except (OSError, ValueError):
        return f"{file.absolute()} is missing"
    return f"{file.absolute()} {state.st_mtime_ns} {state.st_size}"


def _size(file: Path) -> tuple[int, int]:
    """Width and height of an image as it is read: turned as its camera says. Only its header is looked at."""
    try:
        with Image.open(file) as image:
            width, height = image.size
            return (height, width) if image.getexif().get(EXIF_ORIENTATION) in TURNED else (width, height)
    except (OSError, ValueError) as error:  # Pillow's own is an OSError
        raise ConfigError(f"{file} cannot be read as an image: {error}") from None
