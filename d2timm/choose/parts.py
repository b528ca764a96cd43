"""The parts of a dataset: one to train on, one to choose by, and one that only the verdict looks at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..data.checks.across import groups
from ..data.checks.partition import Part, select
from ..data.datasets.coco import CustomDataset
from ..errors import ConfigError
from ..utils.files import atomic_write
from ..utils.json_file import encode_json

__all__ = ["CHOOSE", "FINAL", "PROBE", "TEST", "TRAIN", "divide", "part_file", "write_parts"]

TRAIN, CHOOSE, TEST = "train", "choose", "test"
FINAL = "train_and_choose"  # on which the chosen backbone is trained
PROBE = "probe"  # a few images whose detection is timed
PROBED = 8  # of these
TEST_SHARE = 0.2  # of all images, and as many to choose by
FEWEST = 5  # images with objects
SEED = 0  # of the division, so that a choice that is repeated has the same parts
Coco = Mapping[str, Any]


def part_file(folder: Path, part: str) -> Path:
    """The COCO file of a part in the folder of a choice."""
    return folder / "data" / f"{part}.json"


def write_parts(dataset: CustomDataset, folder: Path) -> tuple[dict[str, int], list[str]]:
    """Divide a dataset and write a COCO file for each part.

    Args:
        dataset: the user's images.
        folder: of the choice.

    Returns:
        Part -> number of images; and what a reader should know of the division.

    Raises:
        ConfigError: there are too few images.
    """
    train = dataset.split("train").coco
    val = dataset.split("val").coco if dataset.has("val") else None
    parts, notes = divide(train, val)
    parts[FINAL] = _join(parts[TRAIN], parts[CHOOSE])
    parts[PROBE] = _restrict(parts[CHOOSE], [image["id"] for image in parts[CHOOSE]["images"]][:PROBED])
    for part, coco in parts.items():
        file = part_file(folder, part)
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(file) as partial:
            partial.write_bytes(encode_json(coco))
    return {part: len(parts[part]["images"]) for part in (TRAIN, CHOOSE, TEST)}, notes


def divide(train: Coco, val: Coco | None) -> tuple[dict[str, Coco], list[str]]:
    """Divide images so that each part has its share of each class; images that look the same stay together.

    If the user has a validation split, its images are those to choose by and to test on.

    Args:
        train: the training split, a COCO file with absolute names of files.
        val: the validation split; None: there is none.

    Returns:
        Part -> its COCO file; and notes.

    Raises:
        ConfigError: there are too few images.
    """
    notes = []
    if val is None:
        rest, test, joined = _cut(train, TEST_SHARE)
        first, choose, _ = _cut(rest, TEST_SHARE / (1 - TEST_SHARE))
    else:
        first = train
        choose, test, joined = _cut(val, 0.5)
        notes.append("The training images are yours; the validation images are divided into choose and test.")
    if joined:
        notes.append(f"{joined} images look like another one and are in the same part.")
    parts = {TRAIN: first, CHOOSE: choose, TEST: test}
    sizes = ", ".join(f"{len(coco['images'])} to {_PURPOSES[part]}" for part, coco in parts.items())
    rare = _rare(parts)
    notes.insert(0, f"Images: {sizes}.")
    if rare:
        notes.append(
            f"Classes with fewer than 5 objects in a part, whose scores mean little: {', '.join(rare)}."
        )
    return parts, notes


_PURPOSES = {TRAIN: "train on", CHOOSE: "choose by", TEST: "test on at the end"}


def _cut(coco: Coco, share: float) -> tuple[Coco, Coco, int]:
    """Two parts, the second one of this share, and the number of images that look like another one."""
    files = [image["file_name"] for image in coco["images"]]
    group_of = dict(zip((image["id"] for image in coco["images"]), groups(files), strict=True))
    sizes = Counter(group_of.values())
    grouped = {
        "images": [{"id": group} for group in sorted(sizes)],
        "annotations": [
            {**annotation, "image_id": group_of[annotation["image_id"]]} for annotation in coco["annotations"]
        ],
    }
    labelled = {annotation["image_id"] for annotation in coco["annotations"]}
    if len(labelled) < FEWEST:
        raise ConfigError(f"{len(labelled)} images with objects are too few for a choice: at least {FEWEST}")
    second = {image["id"] for image in select(grouped, Part(share, SEED, held_out=True))["images"]}
    parts = [
        _restrict(coco, [image for image, group in group_of.items() if (group in second) == held_out])
        for held_out in (False, True)
    ]
    return parts[0], parts[1], sum(size for size in sizes.values() if size > 1)


def _restrict(coco: Coco, images: Iterable[int]) -> Coco:
    kept = set(images)
    return {
        **coco,
        "images": [image for image in coco["images"] if image["id"] in kept],
        "annotations": [a for a in coco["annotations"] if a["image_id"] in kept],
    }


def _join(one: Coco, other: Coco) -> Coco:
    """The images of two parts, with new ids, because those of two files may be the same."""
    images: list[Any] = []
    annotations: list[Any] = []
    for coco in (one, other):
        new = {image["id"]: len(images) + number for number, image in enumerate(coco["images"])}
        images += [{**image, "id": new[image["id"]]} for image in coco["images"]]
        annotations += [
            {**a, "image_id": new[a["image_id"]], "id": len(annotations) + number}
            for number, a in enumerate(coco["annotations"], start=1)
        ]
    return {**one, "images": images, "annotations": annotations}


def _rare(parts: Mapping[str, Coco]) -> Sequence[str]:
    """Names of the classes that few objects of the smaller parts have."""
    names = {category["id"]: category["name"] for category in parts[TRAIN]["categories"]}
    counts = [Counter(a["category_id"] for a in parts[part]["annotations"]) for part in (CHOOSE, TEST)]
    return [name for number, name in names.items() if min(count[number] for count in counts) < 5]
