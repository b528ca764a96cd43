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
LEAST = 3  # boxes, to conclude anything from them
MANY = 0.25  # of the boxes
ROUNDING = 1.0  # pixels by which boxes may leave their image
LEAST_SIDE = 0.01  # pixels; detectron2 leaves out boxes whose sides vanish in float32

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
    crowd, ignored = (as_flag(annotation.get(key)) for key in ("iscrowd", "ignore"))
    if crowd is None:
        findings.add("invalid_annotation", f"{name}: iscrowd is {annotation['iscrowd']!r:.60}")
        return None
    mask, problem = read_mask(annotation.get("segmentation"), image.size)
    if mask is not None and image.turn.orientation != 1:
        mask = turn_mask(mask, image.turn.points, image.turn.pixels)
    box = _box(annotation, mask, image, name, findings)
    if box is None:
        return None
    if problem:
        findings.add(problem, name)
    if crowd or ignored:
        findings.add("crowd_object" if crowd else "difficult_object", name)
    entry: dict[str, Any] = {
        **{key: annotation[key] for key in ("id", "source") if key in annotation},
        "category_id": annotation["category_id"],
        "bbox": box,
        "area": _area(annotation, mask, box, image.turn.shown),
        "iscrowd": int(crowd or bool(ignored)),
    }
    if mask is not None:
        entry["segmentation"] = mask
    if num_keypoints:
        entry |= _keypoints(annotation, num_keypoints, image, name, findings)
    return entry


def _area(annotation: Mapping[str, Any], mask: Mask | None, box: Sequence[float], size: Size) -> float:
    """The area of an object in pixels, which is not more than that of its image."""
    area, largest = as_number(annotation.get("area")), size[0] * size[1]
    if area is not None and 0 < area <= largest:
        return area
    return min((area_of(mask) if mask else 0) or box[2] * box[3], largest)


def _box(
    annotation: Mapping[str, Any], mask: Mask | None, image: CheckedImage, name: str, findings: Findings
) -> list[float] | None:
    """(left, top, width, height) in the image as shown; None if the object cannot be used."""
    value, size = annotation.get("bbox"), image.turn.shown
    numbers = as_numbers(value)
    four = numbers if numbers is not None and len(numbers) == 4 else None
    given = four if four is not None and min(four[2:]) > 0 else None
    if given is not None:
        box = image.turn.box(given) if image.turn.orientation != 1 else given
    elif mask is not None:
        box = box_of(mask)
    else:
        reason = "no bbox" if value is None or value == [] else f"bbox is {value!r:.60}"
        findings.add("empty_box" if four else "invalid_annotation", f"{name}: {reason}")
        return None
    visible = min(min(box[i] + box[i + 2], size[i]) - max(box[i], 0) for i in (0, 1))
    if visible < LEAST_SIDE:
        kind = "empty_box" if visible > 0 else "outside_box"
        findings.add(kind, f"{name}: {value!r:.60}, and the image has {size[0]}x{size[1]} pixels")
        return None
    if given is None:
        findings.add("box_from_mask", name)
    elif given != value:
        findings.add("odd_numbers", name)
    if any(box[i] < -ROUNDING or box[i] + box[i + 2] > size[i] + ROUNDING for i in (0, 1)):
        findings.add("beyond_image", f"{name}: {value!r:.60}")
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
    labelled = [turned[i : i + 2] for i in range(0, len(turned), 3) if turned[i + 2] > 0]
    width, height = image.turn.shown
    if any(not (0 <= x + 0.5 <= width and 0 <= y + 0.5 <= height) for x, y in labelled):
        findings.add("outside_keypoint", name)
    return {"keypoints": turned, "num_keypoints": len(labelled)}


def find_other_conventions(
    annotations: Sequence[tuple[Mapping[str, Any], int]],
    images: Mapping[int, CheckedImage],
    findings: Findings,
) -> None:
    """Find boxes that are corners or fractions instead of [x, y, width, height] in pixels.

    Many of them make no sense in COCO's convention, and they make sense in the other one.
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
    corners = sum(_are_corners(box, size) for box, size, _ in boxes)
    most = len(beyond) > len(boxes) / 2 and corners >= 0.9 * len(boxes)
    if len(boxes) >= LEAST and (most or (len(beyond) > MANY * len(boxes) and corners == len(boxes))):
        findings.add("corner_boxes", *beyond)


def _exceeds(box: Sequence[float], size: Size) -> bool:
    return any(box[i] + box[i + 2] > size[i] * (1 + BEYOND) for i in (0, 1))


def _are_corners(box: Sequence[float], size: Size) -> bool:
    return all(box[i] < box[i + 2] <= size[i] + ROUNDING for i in (0, 1))
