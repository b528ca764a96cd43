"""Hold out a part of the images for validation: seeded, by image, stratified by class."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...errors import ConfigError

__all__ = ["Part", "select"]


@dataclass(frozen=True)
class Part:
    """A part of the images of a dataset.

    Attributes:
        share: of the images that are held out, 0 to 1 exclusive.
        seed: of the choice; the same seed gives the same parts.
        held_out: whether this is the part that is held out, or the rest.
    """

    share: float
    seed: int
    held_out: bool


def select(coco: Mapping[str, Any], part: Part) -> dict[str, Any]:
    """The images of a part with their annotations, and all categories.

    Raises:
        ConfigError: there are fewer than two images.
    """
    images = coco["images"]
    if len(images) < 2:
        raise ConfigError(f"data.val_share={part.share}: {len(images)} images cannot be split into two parts")
    held_out = _held_out(coco, part.share, part.seed)
    kept = {image["id"] for image in images if (image["id"] in held_out) == part.held_out}
    return {
        **coco,
        "images": [image for image in images if image["id"] in kept],
        "annotations": [annotation for annotation in coco["annotations"] if annotation["image_id"] in kept],
    }


def _held_out(coco: Mapping[str, Any], share: float, seed: int) -> set[int]:
    """The ids of the images that are held out.

    Images are assigned beginning with those of the rarest class that is left, each to the part that lacks
    most objects of that class (iterative stratification, Sechidis et al., ECML PKDD 2011).
    """
    objects: dict[int, Counter[int]] = {image["id"]: Counter() for image in coco["images"]}
    for annotation in coco["annotations"]:
        objects[annotation["image_id"]][annotation["category_id"]] += 1
    order = sorted(objects)
    random.Random(seed).shuffle(order)
    images_of: dict[int, list[int]] = {}
    for image in order:
        for category in objects[image]:
            images_of.setdefault(category, []).append(image)
    total = sum(objects.values(), Counter[int]())
    wanted = {
        category: share * count for category, count in total.items()
    }  # objects that are still to hold out
    most = min(max(round(share * len(order)), 1), len(order) - 1)
    held_out: set[int] = set()

    def hold_out(image: int) -> None:
        held_out.add(image)
        for category, count in objects[image].items():
            wanted[category] -= count

    seen: set[int] = set()
    for category in sorted(images_of, key=lambda c: (total[c], c)):  # the rarest first
        for image in images_of[category]:
            # half an object: a class with a single one is for training
            if (
                image not in seen
                and len(held_out) < most
                and wanted[category] >= objects[image][category] / 2
            ):
                hold_out(image)
            seen.add(image)
    unique = {images[0] for images in images_of.values() if len(images) == 1}
    for image in sorted(order, key=lambda image: (len(objects[image]) > 0, image in unique)):
        if len(held_out) < most and image not in held_out:
            hold_out(image)
    return held_out
