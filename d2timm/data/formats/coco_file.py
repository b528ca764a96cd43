"""COCO annotation files: cached reading, and checks that a detector can use the content."""

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

WITHOUT_MASKS = "use roi_heads=box or lazy_configs/faster_rcnn_timm.py"  # or keypoints


def read_coco(file: Path, file_names: bool = True) -> dict[str, Any]:
    """Read a COCO file, whose lists and required fields are checked; an unchanged file is read once.

    Args:
        file: the JSON file.
        file_names: whether its images must have ``file_name``; LVIS does not have it.

    Raises:
        ConfigError: the file cannot be read, or is not JSON in COCO's format.
    """
    try:
        return _read(file, file.stat().st_mtime_ns, file_names)
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}") from None


def categories(coco: Mapping[str, Any]) -> list[str]:
    """Names of the categories, in the order of their ids."""
    return [category["name"] for category in sorted(coco["categories"], key=lambda c: c["id"])]


def keypoint_names(coco: Mapping[str, Any], label: str) -> list[str]:
    """Names of the keypoints, which must be the same in all categories.

    Args:
        coco: the content of a file.
        label: the name of the file in error messages.

    Raises:
        ConfigError: a category has no keypoints, or others than the first category.
    """
    first: Any = coco["categories"][0].get("keypoints") if coco["categories"] else None
    differing = [c["name"] for c in coco["categories"] if c.get("keypoints") != first]
    if differing or not first or not isinstance(first, list) or not all(isinstance(n, str) for n in first):
        problem = f"{differing[0]!r} has others or none" if differing else "there are none"
        raise ConfigError(
            f"{label}: a keypoint head needs the same list of names 'keypoints' in every category, but "
            f"{problem}: {WITHOUT_MASKS}"
        )
    return [*first]


def check_objects(coco: Mapping[str, Any], tasks: Sequence[str], label: str) -> int:
    """Check that detectron2 can read all annotations, and that they contain what the tasks need.

    Args:
        coco: the content of a file.
        tasks: the tasks of the detector.
        label: the name of the file in error messages.

    Returns:
        The number of annotations that a detector can be trained on.

    Raises:
        ConfigError: there are none, or an annotation is invalid or incomplete.
    """
    images = {image["id"] for image in coco["images"]}
    category_ids = {category["id"] for category in coco["categories"]}
    usable = [a for a in coco["annotations"] if _is_usable(a, images, category_ids)]
    if not usable:
        raise ConfigError(
            f"{label}: no usable annotations among {len(coco['annotations'])}; an annotation needs an image "
            "and a category of the file, and a bbox [x, y, width, height] with both sides > 0"
        )
    invalid = [
        a["id"] for a in coco["annotations"] if a["image_id"] in images and not _is_readable(a, category_ids)
    ]
    if invalid:
        raise ConfigError(
            f"{label}: {len(invalid)} invalid annotations, such as id {invalid[0]}: each needs a bbox "
            "[x, y, width, height] and a category of the file, and any segmentation or keypoints must be in "
            "COCO's format; correct or remove them"
        )
    if "segm" in tasks:
        _check_masks(usable, label)
    if "keypoints" in tasks:
        _check_keypoints(usable, 3 * len(keypoint_names(coco, label)), label)
    return len(usable)


def check_images(coco: Mapping[str, Any], folder: Path, json_name: str, label: str) -> None:
    """Raise ConfigError if images of a file are missing in their folder."""
    names = [image["file_name"] for image in coco["images"]]
    # one listing is faster than a look-up per image, which names with a folder need
    listing = set(os.listdir(folder)) if all("/" not in n for n in names) else None
    missing = [n for n in names if (n not in listing if listing is not None else not (folder / n).is_file())]
    if missing:
        raise ConfigError(
            f"{label}={folder}: {len(missing)} of {len(names)} images of {json_name} are missing, such as "
            f"{missing[0]}"
        )


def _check_masks(usable: Sequence[Mapping[str, Any]], label: str) -> None:
    incomplete = [a["id"] for a in usable if not a.get("segmentation")]
    if len(incomplete) == len(usable):
        raise ConfigError(f"{label} has boxes but no segmentation: {WITHOUT_MASKS}")
    if incomplete:
        raise ConfigError(
            f"{label}: {len(incomplete)} annotations, such as id {incomplete[0]}, have no segmentation: "
            f"remove them or {WITHOUT_MASKS}"
        )


def _check_keypoints(usable: Sequence[Mapping[str, Any]], length: int, label: str) -> None:
    incomplete = [a["id"] for a in usable if len(a.get("keypoints") or []) != length]
    if incomplete:
        raise ConfigError(
            f"{label}: {len(incomplete)} annotations, such as id {incomplete[0]}, do not have {length} "
            "numbers in 'keypoints', x, y and visibility of each: write 0, 0, 0 for an unlabelled keypoint"
        )


def _is_usable(annotation: Any, images: set[int], category_ids: set[int]) -> bool:
    """Whether a detector can be trained on an annotation."""
    return (
        annotation["image_id"] in images
        and _is_readable(annotation, category_ids)
        and not annotation.get("iscrowd")
        and min(annotation["bbox"][2:]) > 0
    )


def _is_readable(annotation: Mapping[str, Any], category_ids: set[int]) -> bool:
    """Whether detectron2 can read an annotation, for any task."""
    box, mask, keypoints = (annotation.get(key) for key in ("bbox", "segmentation", "keypoints"))
    return (
        annotation["category_id"] in category_ids
        and _are_numbers(box)
        and len(box) == 4
        and (not mask or _is_mask(mask))
        and (not keypoints or _are_numbers(keypoints))
    )


def _are_numbers(values: Any) -> TypeGuard[list[float]]:
    return isinstance(values, list) and all(isinstance(v, (int, float)) and isfinite(v) for v in values)


def _is_mask(mask: Any) -> bool:
    """Whether a value is a list of polygons or run lengths."""
    if isinstance(mask, dict):
        return isinstance(mask.get("counts"), (str, list)) and _are_numbers(mask.get("size"))
    return isinstance(mask, list) and all(map(_are_numbers, mask))


@functools.lru_cache(maxsize=4)
def _read(file: Path, mtime_ns: int, file_names: bool) -> dict[str, Any]:
    try:
        coco = json.loads(file.read_bytes())
    except ValueError as error:
        raise ConfigError(f"{file} is not JSON: {error}") from None
    required: dict[str, dict[str, Any]] = {
        "images": {"id": int, "file_name": str, "height": int, "width": int},
        "annotations": {"id": (int, str), "image_id": int, "category_id": int},
        "categories": {"id": int, "name": str},
    }
    if not file_names:
        del required["images"]["file_name"]
    for key, fields in required.items():
        entries = coco.get(key) if isinstance(coco, dict) else None
        if not isinstance(entries, list):
            raise ConfigError(f"{file} is not in COCO format: it has no list {key!r}")
        for field, kind in fields.items():
            if not all(isinstance(entry, dict) and field in entry for entry in entries):
                raise ConfigError(f"{file} is not in COCO format: an entry of {key!r} has no {field!r}")
            invalid = [entry[field] for entry in entries if not isinstance(entry[field], kind)]
            if invalid:
                raise ConfigError(f"{file} is not in COCO format: {field!r} in {key!r} is {invalid[0]!r}")
    for key in required:
        number, count = Counter(entry["id"] for entry in coco[key]).most_common(1)[0] if coco[key] else (0, 0)
        if count > 1:
            raise ConfigError(
                f"{file} is not in COCO format: {count} entries of {key!r} have the id {number}"
            )
    return dict(coco)
