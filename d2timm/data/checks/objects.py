"""Check the objects of a COCO file, and write them as detectron2 and pycocotools read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .findings import Findings
from .images import CheckedImage
from .masks import Mask, area_of, box_of, crosses_itself, read_mask, turn_mask
from .structure import name_of
from .values import as_flag, as_number, as_numbers

__all__ = ["check_objects", "find_other_conventions"]

BEYOND = 0.05  # of a side, by which boxes that are read in a wrong convention exceed an image
LEAST = 5  # boxes, to conclude anything from most of them
ROUNDING = 1.0  # pixels by which boxes may leave their image

Size = tuple[int, int]  # (width, height)


def check_objects(
    annotations: Sequence[tuple[Mapping[str, Any], int]],
    images: Mapping[int, CheckedImage],
    num_keypoints: int,
    findings: Findings,
) -> list[tuple[dict[str, Any], int]]:
    """Check annotations, and turn them to the images as shown.

    Args:
        annotations: annotations and the indices of their images, which need not be usable.
        images: index -> image, for all that can be used.
        num_keypoints: keypoints per object; 0 if the dataset has none.
        findings: receives annotations that cannot be used, or only after a correction.

    Returns:
        Annotations with ``category_id``, ``bbox``, ``area`` and ``iscrowd``, and ``segmentation`` and
        ``keypoints`` where they are valid, and the indices of their images.
    """
    checked = []
    masks: list[tuple[str, list[list[float]]]] = []
    for annotation, index in annotations:
        if (image := images.get(index)) is None:
            continue
        name = name_of(annotation, image.name)
        entry = _check(annotation, image, num_keypoints, name, findings)
        if entry is not None:
            checked.append((entry, index))
            if isinstance(entry.get("segmentation"), list):
                masks.append((name, entry["segmentation"]))
    crossing = crosses_itself([polygons for _, polygons in masks])
    findings.add(
        "crossing_polygon", *(name for (name, _), crosses in zip(masks, crossing, strict=True) if crosses)
    )
    without = [name_of(a, images[i].name) for a, i in checked if "segmentation" not in a and not a["iscrowd"]]
    if masks or any("segmentation" in entry for entry, _ in checked):
        findings.add("no_mask", *without)
    return checked


def _check(
    annotation: Mapping[str, Any], image: CheckedImage, num_keypoints: int, name: str, findings: Findings
) -> dict[str, Any] | None:
    """One annotation as it is used; None if it cannot be used."""
    crowd = as_flag(annotation.get("iscrowd"))
    if crowd is None:
        findings.add("invalid_annotation", f"{name}: iscrowd is {annotation['iscrowd']!r}")
        return None
    mask, problem = read_mask(annotation.get("segmentation"), image.size)
    if mask is not None:
        mask = turn_mask(mask, image.turn.points, image.turn.pixels) if image.turn.orientation != 1 else mask
    box = _box(annotation, mask, image, name, findings)
    if box is None:
        return None
    if problem:
        findings.add(problem, name)
    area = as_number(annotation.get("area"))
    entry: dict[str, Any] = {
        **{key: annotation[key] for key in ("id", "source") if key in annotation},
        "category_id": annotation["category_id"],
        "bbox": box,
        "area": area if area and area > 0 else area_of(mask) if mask else box[2] * box[3],
        "iscrowd": int(crowd),
    }
    if mask is not None:
        entry["segmentation"] = mask
    if num_keypoints:
        entry |= _keypoints(annotation, num_keypoints, image, name, findings)
    return entry


def _box(
    annotation: Mapping[str, Any], mask: Mask | None, image: CheckedImage, name: str, findings: Findings
) -> list[float] | None:
    """(left, top, width, height) in the image as shown; None if the object cannot be used."""
    value = annotation.get("bbox")
    missing = value is None or value == []
    numbers = as_numbers(value)
    if numbers is None or len(numbers) != 4 or not min(numbers[2:]) > 0:
        if mask is not None:
            box = box_of(mask)
            if min(box[2:]) > 0:
                findings.add("box_from_mask", name)
                return box
        if missing:
            findings.add("invalid_annotation", f"{name}: no bbox")
        elif numbers is None or len(numbers) != 4:
            findings.add("invalid_annotation", f"{name}: bbox is {value!r:.60}")
        else:
            findings.add("empty_box", f"{name}: {value!r}")
        return None
    if any(isinstance(number, str) for number in value or ()):
        findings.add("odd_numbers", name)
    box = image.turn.box(numbers) if image.turn.orientation != 1 else numbers
    x, y, w, h = box
    width, height = image.turn.shown
    if x >= width or y >= height or x + w <= 0 or y + h <= 0:
        findings.add("outside_box", f"{name}: {value!r}, and the image has {width}x{height} pixels")
        return None
    if min(x, y) < -ROUNDING or x + w > width + ROUNDING or y + h > height + ROUNDING:
        findings.add("beyond_image", f"{name}: {value!r}")
    return box


def _keypoints(
    annotation: Mapping[str, Any], count: int, image: CheckedImage, name: str, findings: Findings
) -> dict[str, Any]:
    """The fields of keypoints; objects without keypoints have unlabelled ones, as in COCO."""
    value = annotation.get("keypoints")
    numbers = as_numbers(value) if value else [0.0] * (3 * count)
    if numbers is None or len(numbers) != 3 * count:
        findings.add("invalid_keypoints", f"{name}: {count} x 3 numbers are needed")
        numbers = [0.0] * (3 * count)
    turned = image.turn.keypoints(numbers)
    return {"keypoints": turned, "num_keypoints": sum(visibility > 0 for visibility in turned[2::3])}


def find_other_conventions(
    annotations: Sequence[tuple[Mapping[str, Any], int]],
    images: Mapping[int, CheckedImage],
    findings: Findings,
) -> None:
    """Find boxes that are corners or fractions instead of [x, y, width, height] in pixels.

    They are most of the boxes, make no sense in COCO's convention, and make sense in the other one.
    """
    boxes = [
        (box, images[index].size, name_of(annotation, images[index].name))
        for annotation, index in annotations
        if index in images and (box := as_numbers(annotation.get("bbox"))) and len(box) == 4
    ]
    if not boxes:
        return
    fractions = [name for box, _, name in boxes if max(box) <= 1 and min(box) >= 0 and max(box[2:]) > 0]
    if len(fractions) == len(boxes):
        findings.add("fraction_boxes", *fractions)
    beyond = [name for box, size, name in boxes if _exceeds(box, size)]
    corners = [box for box, size, _ in boxes if _are_corners(box, size)]
    if len(boxes) >= LEAST and len(beyond) > len(boxes) / 2 and len(corners) >= 0.9 * len(boxes):
        findings.add("corner_boxes", *beyond)


def _exceeds(box: Sequence[float], size: Size) -> bool:
    return any(box[i] + box[i + 2] > size[i] * (1 + BEYOND) for i in (0, 1))


def _are_corners(box: Sequence[float], size: Size) -> bool:
    return all(box[i] < box[i + 2] <= size[i] + ROUNDING for i in (0, 1))
