"""COCO's annotation files: read once, made sure of, and checked for what a detector needs of them."""

from __future__ import annotations

import functools
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Any, TypeGuard

from ...errors import ConfigError

__all__ = ["categories", "check_images", "check_objects", "keypoint_names", "read_coco"]


def read_coco(file: Path, file_names: bool = True) -> dict[str, Any]:
    """The JSON of a COCO file, made sure of its lists and their fields.

    Args:
        file: the JSON.
        file_names: whether its images must have ``file_name``, which those of LVIS have not.

    Raises:
        ConfigError: a file that cannot be read, is no JSON or not in COCO's format.
    """
    try:
        return _read(file, file.stat().st_mtime_ns, file_names)
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}") from None


def categories(coco: Mapping[str, Any]) -> list[str]:
    """Names of the categories, in the order of their ids."""
    return [category["name"] for category in sorted(coco["categories"], key=lambda c: c["id"])]


def keypoint_names(coco: Mapping[str, Any], told: str) -> list[str]:
    """Names of the keypoints that the objects of all categories have.

    Args:
        coco: the content of a file.
        told: how the file is called in messages.

    Raises:
        ConfigError: a category has none, or others than the first.
    """
    first: Any = coco["categories"][0].get("keypoints") if coco["categories"] else None
    differing = [c["name"] for c in coco["categories"] if c.get("keypoints") != first]
    if not first or not isinstance(first, list) or not all(isinstance(n, str) for n in first) or differing:
        which = differing[0] if differing else "any"
        raise ConfigError(
            f"{told}: a keypoint head needs the same 'keypoints' in every category, {which!r} has others or "
            "none; use roi_heads=box or lazy_configs/faster_rcnn_timm.py"
        )
    return [*first]


def check_objects(coco: Mapping[str, Any], tasks: Sequence[str], told: str) -> int:
    """Make sure that detectron2 can read all objects and that they have what the detector learns.

    Args:
        coco: the content of a file.
        tasks: what the detector finds.
        told: how the file is called in messages.

    Returns:
        The number of objects to learn from.
    """
    images = {image["id"] for image in coco["images"]}
    known = {category["id"] for category in coco["categories"]}
    usable = [a for a in coco["annotations"] if _usable(a, images, known)]
    if not usable:
        raise ConfigError(
            f"{told}: none of its {len(coco['annotations'])} annotations is usable; one needs an image and a "
            "category of the file and a bbox [x, y, width, height] with both sides > 0"
        )
    broken = [a["id"] for a in coco["annotations"] if a["image_id"] in images and not _readable(a, known)]
    if broken:
        raise ConfigError(
            f"{told}: {len(broken)} annotations, such as that of id {broken[0]}, have no bbox "
            "[x, y, width, height], no category of the file, or a segmentation or keypoints of another "
            "format; leave them out"
        )
    if "segm" in tasks:
        _check_masks(usable, told)
    if "keypoints" in tasks:
        _check_keypoints(usable, 3 * len(keypoint_names(coco, told)), told)
    return len(usable)


def check_images(coco: Mapping[str, Any], folder: Path, json_name: str, told: str) -> None:
    """Raise ConfigError if images of a file are not in their folder."""
    names = [image["file_name"] for image in coco["images"]]
    there = set(os.listdir(folder)) if all("/" not in n for n in names) else None
    absent = [n for n in names if (n not in there if there is not None else not (folder / n).is_file())]
    if absent:
        raise ConfigError(
            f"{told}={folder}: {len(absent)} of {len(names)} images of {json_name} are not there, such as "
            f"{absent[0]}"
        )


def _check_masks(usable: Sequence[Mapping[str, Any]], told: str) -> None:
    bare = [a["id"] for a in usable if not a.get("segmentation")]
    without = "use roi_heads=box or lazy_configs/faster_rcnn_timm.py"
    if len(bare) == len(usable):
        raise ConfigError(f"{told} has boxes but no segmentation: {without}")
    if bare:
        raise ConfigError(
            f"{told}: {len(bare)} annotations, such as that of id {bare[0]}, have no segmentation: "
            f"leave them out or {without}"
        )


def _check_keypoints(usable: Sequence[Mapping[str, Any]], length: int, told: str) -> None:
    wrong = [a["id"] for a in usable if len(a.get("keypoints") or []) != length]
    if wrong:
        raise ConfigError(
            f"{told}: {len(wrong)} annotations, such as that of id {wrong[0]}, have no 'keypoints' of "
            f"{length} numbers, x, y and visibility of each: give 0, 0, 0 for a point that is not labelled"
        )


def _usable(annotation: Any, images: set[int], known: set[int]) -> bool:
    return (
        annotation["image_id"] in images
        and _readable(annotation, known)
        and not annotation.get("iscrowd")
        and min(annotation["bbox"][2:]) > 0
    )


def _readable(annotation: Mapping[str, Any], known: set[int]) -> bool:
    """Whether detectron2 can read an annotation, of whatever it may learn."""
    box, mask, points = (annotation.get(key) for key in ("bbox", "segmentation", "keypoints"))
    return (
        annotation["category_id"] in known
        and _are_numbers(box)
        and len(box) == 4
        and (not mask or _is_mask(mask))
        and (not points or _are_numbers(points))
    )


def _are_numbers(values: Any) -> TypeGuard[list[float]]:
    return isinstance(values, list) and all(isinstance(v, (int, float)) and isfinite(v) for v in values)


def _is_mask(mask: Any) -> bool:
    """Whether it is polygons or run lengths."""
    if isinstance(mask, dict):
        return isinstance(mask.get("counts"), (str, list)) and _are_numbers(mask.get("size"))
    return isinstance(mask, list) and all(map(_are_numbers, mask))


@functools.lru_cache(maxsize=4)
def _read(file: Path, changed: int, file_names: bool) -> dict[str, Any]:
    try:
        coco = json.loads(file.read_bytes())
    except ValueError as error:
        raise ConfigError(f"{file} is not JSON: {error}") from None
    needed: dict[str, dict[str, Any]] = {
        "images": {"id": int, "file_name": str, "height": int, "width": int},
        "annotations": {"id": (int, str), "image_id": int, "category_id": int},
        "categories": {"id": int, "name": str},
    }
    if not file_names:
        del needed["images"]["file_name"]
    for key, fields in needed.items():
        entries = coco.get(key) if isinstance(coco, dict) else None
        if not isinstance(entries, list):
            raise ConfigError(f"{file} is not in COCO format: it has no list {key!r}")
        for field, kind in fields.items():
            if not all(isinstance(entry, dict) and field in entry for entry in entries):
                raise ConfigError(f"{file} is not in COCO format: an entry of {key!r} has no {field!r}")
            wrong = [entry[field] for entry in entries if not isinstance(entry[field], kind)]
            if wrong:
                raise ConfigError(f"{file} is not in COCO format: {field!r} in {key!r} is {wrong[0]!r}")
    for key in needed:
        number, count = Counter(entry["id"] for entry in coco[key]).most_common(1)[0] if coco[key] else (0, 0)
        if count > 1:
            raise ConfigError(
                f"{file} is not in COCO format: {count} entries of {key!r} have the id {number}"
            )
    return dict(coco)
