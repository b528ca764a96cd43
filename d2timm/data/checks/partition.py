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
        ConfigError: fewer than two images have objects, which both parts need.
    """
    held_out = _held_out(coco, part)
    kept = {image["id"] for image in coco["images"] if (image["id"] in held_out) == part.held_out}
    return {
        **coco,
        "images": [image for image in coco["images"] if image["id"] in kept],
        "annotations": [annotation for annotation in coco["annotations"] if annotation["image_id"] in kept],
    }


def _held_out(coco: Mapping[str, Any], part: Part) -> set[int]:
    """The ids of the images that are held out: the share of those with objects, and of those without."""
    order = sorted(image["id"] for image in coco["images"])
    random.Random(part.seed).shuffle(order)
    objects: dict[int, Counter[int]] = {image: Counter() for image in order}
    for annotation in coco["annotations"]:
        if not annotation["iscrowd"]:
            objects[annotation["image_id"]][annotation["category_id"]] += 1
    labelled = {image: objects[image] for image in order if objects[image]}
    empty = [image for image in order if not objects[image]]
    if len(labelled) < 2:
        raise ConfigError(
            f"data.val_share={part.share}: {len(labelled)} images with objects cannot be split into two parts"
        )
    number = min(max(round(part.share * len(labelled)), 1), len(labelled) - 1)
    return {*_stratified(labelled, part.share, number), *empty[: round(part.share * len(empty))]}


def _stratified(objects: Mapping[int, Counter[int]], share: float, number: int) -> set[int]:
    """Choose images so that they have the share of the objects of each class.

    Images are looked at beginning with those of the rarest class, and chosen if too few objects of that class
    are (iterative stratification, Sechidis et al., ECML PKDD 2011). If possible, each class keeps an image.

    Args:
        objects: image -> class -> number of objects.
        share: of the objects, 0 to 1 exclusive.
        number: of images to choose.
    """
    total = sum(objects.values(), Counter[int]())
    lacking = {category: share * count for category, count in total.items()}
    images_of = {category: [image for image in objects if objects[image][category]] for category in total}
    left = {category: len(images) for category, images in images_of.items()}
    chosen: set[int] = set()

    def choose(image: int) -> None:
        chosen.add(image)
        for category, count in objects[image].items():
            lacking[category] -= count
            left[category] -= 1

    def can_choose(image: int) -> bool:
        open_ = len(chosen) < number and image not in chosen
        return open_ and all(left[category] > 1 for category in objects[image])

    seen: set[int] = set()
    for category in sorted(total, key=lambda category: (total[category], category)):
        for image in images_of[category]:
            half = objects[image][category] / 2  # as in rounding
            if image not in seen and lacking[category] >= half and can_choose(image):
                choose(image)
            seen.add(image)
    for image in filter(can_choose, objects):
        choose(image)
    rest = [image for image in objects if image not in chosen]
    return chosen | set(rest[: number - len(chosen)])
