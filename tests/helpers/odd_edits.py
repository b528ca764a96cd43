"""Damage to an ``OddSet``, and what is expected of it."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.coco_edits import Edit
from helpers.evaluation import run_lengths
from helpers.odd_sets import ALL_TASKS, BOXES, Coco, OddSet, describe, examine, turn_back, write_photo
from pycocotools import mask as coco_mask

__all__ = [
    "Expected",
    "OddEdit",
    "assert_becomes",
    "both",
    "cases_of",
    "changed_image",
    "compressed",
    "encoded",
    "exif",
    "kept",
    "merged",
    "named",
    "objects",
    "rejected",
    "renumbered",
    "shared",
    "train",
    "uncompressed",
    "val",
    "with_keys",
]

OddEdit = Callable[[OddSet], Any]
Counts = tuple[int, int]  # of the training and the validation split


@dataclass(frozen=True)
class Expected:
    """What becomes of a dataset.

    Attributes:
        error: regular expression of the error that rejects it; "" if it is used.
        images, objects, masks: numbers that are used in both splits.
        findings: kind -> counts in both splits; all of them but for mere notes.
        notes: kinds of notes that are found as well.
        exact: whether objects that are used are where they are drawn.
        other: regular expression of the error for a detector with masks and keypoints.
    """

    error: str = ""
    images: Counts = (3, 2)
    objects: Counts = (6, 4)
    masks: Counts = (6, 4)
    findings: dict[str, Counts] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    exact: bool = True
    other: str = ""


def kept(
    objects: Counts = (6, 4),
    images: Counts = (3, 2),
    masks: Counts | None = None,
    notes: str = "",
    exact: bool = True,
    other: str = "",
    **findings: Counts | int,
) -> Expected:
    """The dataset is used; a single number of a kind of finding is that of the training split."""
    counts = {kind: n if isinstance(n, tuple) else (n, 0) for kind, n in findings.items()}
    return Expected("", images, objects, masks or objects, counts, tuple(notes.split()), exact, other)


def rejected(error: str) -> Expected:
    """The dataset is rejected with an error that contains a regular expression."""
    return Expected(error)


def train(edit: Edit) -> OddEdit:
    """Edit the training file."""
    return lambda odd: edit(odd.train)


def val(edit: Edit) -> OddEdit:
    """Edit the validation file."""
    return lambda odd: edit(odd.val)


def both(edit: Edit) -> OddEdit:
    """Edit both files."""
    return lambda odd: (edit(odd.train), edit(odd.val))


def with_keys(**keys: Any) -> OddEdit:
    """Set keys of the ``data`` node."""
    return lambda odd: odd.keys.update(keys)


def objects(edit: Callable[[dict[str, Any]], Any]) -> Edit:
    """Edit each annotation."""
    return lambda coco: [edit(annotation) for annotation in coco["annotations"]]


def renumbered(
    image: Callable[[int], Any] = int,
    category: Callable[[int], Any] = int,
    image_of: Callable[[int], Any] | None = None,
    category_of: Callable[[int], Any] | None = None,
) -> Edit:
    """Change the ids of images and categories, and how annotations refer to them."""

    def edit(coco: Coco) -> None:
        for entry in coco["images"]:
            entry["id"] = image(entry["id"])
        for entry in coco["categories"]:
            entry["id"] = category(entry["id"])
        for annotation in coco["annotations"]:
            annotation["image_id"] = (image_of or image)(annotation["image_id"])
            annotation["category_id"] = (category_of or category)(annotation["category_id"])

    return edit


def encoded(codec: str, **options: Any) -> OddEdit:
    """Write the training file in an encoding."""
    if codec == "gzip":
        return lambda odd: odd.write("train", gzip.compress(json.dumps(odd.train).encode()))
    return lambda odd: odd.write("train", json.dumps(odd.train, **options).encode(codec))


def uncompressed(box: tuple[int, int, int, int], size: tuple[int, int]) -> list[int]:
    """The run lengths of a rectangle in an image of (width, height)."""
    x, y, w, h = box
    width, height = size
    runs = [x * height + y, *[h, height - h] * (w - 1), h]
    return [*runs, width * height - sum(runs)]


def compressed(rle: Coco) -> Coco:
    """Run lengths as pycocotools compresses them."""
    packed = coco_mask.frPyObjects(rle, *rle["size"])
    return {**rle, "counts": packed["counts"].decode()}


def exif(
    orientation: int,
    size: str = "shown",
    coordinates: str = "shown",
    shape: tuple[int, int] | None = None,
    mask: str = "polygon",
    boxes: bool = True,
    suffix: str = ".png",
) -> OddEdit:
    """Store all images rotated.

    Args:
        orientation: EXIF orientation.
        size: which size the annotations have: ``shown``, ``stored`` or ``none``.
        coordinates: which orientation objects are annotated in: ``shown`` or ``stored``.
        shape: (width, height) of all images as shown; None: as they are.
        mask: ``polygon``, ``rle`` or ``none``.
        boxes: whether annotations have boxes.
        suffix: of the images.
    """

    def edit(odd: OddSet) -> None:
        for split, coco in odd.content.items():
            if shape:
                coco.update(describe([shape] * len(coco["images"])))
            for image in coco["images"]:
                shown = image["width"], image["height"]
                back = turn_back(orientation, shown)
                image["file_name"] = image["file_name"].replace(".png", suffix)
                write_photo(odd.root / split / image["file_name"], shown, orientation)
                sizes = {"shown": shown, "stored": back.shown, "none": (None, None)}
                image["width"], image["height"] = sizes[size]
                for annotation in coco["annotations"]:
                    if annotation["image_id"] == image["id"]:
                        _rotate(annotation, shown, back, coordinates == "stored", mask, boxes)

    return edit


def _rotate(
    annotation: Coco, shown: tuple[int, int], back: Any, stored: bool, mask: str, boxes: bool
) -> None:
    if mask == "rle":
        x, y, w, h = annotation["bbox"]
        pixels = np.zeros(shown[::-1], np.uint8)
        pixels[y : y + h, x : x + w] = 1
        annotation["segmentation"] = run_lengths(back.pixels(pixels) if stored else pixels)
    elif stored:
        annotation["segmentation"] = [back.points(polygon) for polygon in annotation["segmentation"]]
    if mask == "none":
        del annotation["segmentation"]
    if stored:
        annotation["bbox"] = back.box(annotation["bbox"])
        annotation["keypoints"] = back.keypoints(annotation["keypoints"])
    if not boxes:
        del annotation["bbox"]


def changed_image(
    change: Callable[[Any], Any], suffix: str = ".png", split: str = "train", count: int = 1
) -> OddEdit:
    """Change the files of the first images of a split, which are written with a suffix."""

    def edit(odd: OddSet) -> None:
        for image in odd.content[split]["images"][:count]:
            image["file_name"] = image["file_name"].replace(".png", suffix)
            file = odd.root / split / image["file_name"]
            write_photo(file, (image["width"], image["height"]))
            change(file)

    return edit


def named(written: str, on_disk: str = "", count: int = 1) -> OddEdit:
    """Give the first training images a name in the annotations and one on the disk.

    ``{}`` stands for the present name, and ``{root}`` for the image folder.
    """

    def edit(odd: OddSet) -> None:
        for image in odd.train["images"][:count]:
            now = image["file_name"]
            image["file_name"] = written.format(now, root=odd.images)
            target = odd.images / (on_disk or written).format(now)
            target.parent.mkdir(parents=True, exist_ok=True)
            (odd.images / now).rename(target)

    return edit


def shared(share: Any, count: int = 10, edit: Edit = lambda coco: None, **keys: Any) -> OddEdit:
    """Hold out a share of a training set of equal images; there is no validation file."""

    def apply(odd: OddSet) -> None:
        odd.keys.update(val_json=None, val_images=None, val_share=share, **keys)
        odd.content["train"] = odd.content["val"] = describe([(60, 40)] * count)
        for image in odd.train["images"]:
            write_photo(odd.images / image["file_name"], (60, 40))
        edit(odd.train)

    return apply


def merged(edit: Callable[[OddSet, Coco], Any] = lambda odd, coco: None) -> OddEdit:
    """Train on a second file with two images as well, in a folder ``more``."""

    def apply(odd: OddSet) -> None:
        more = describe([(60, 40)] * 2)
        for image in more["images"]:
            write_photo(odd.root / "more" / image["file_name"], (60, 40))
        edit(odd, more)
        (odd.root / "more.json").write_text(json.dumps(more))
        odd.write("train")
        odd.keys["train_json"] = [str(odd.root / name) for name in ("train.json", "more.json")]
        odd.keys["train_images"] = [str(odd.root / name) for name in ("train", "more")]
        numbers = {image["id"]: 4 + i for i, image in enumerate(more["images"])}
        odd.train["images"] += [{**image, "id": numbers[image["id"]]} for image in more["images"]]
        odd.train["annotations"] += [
            {**a, "image_id": numbers.get(a["image_id"], a["image_id"])} for a in more["annotations"]
        ]

    return apply


def cases_of(kinds: Mapping[str, Mapping[str, tuple[OddEdit, Expected]]]) -> list[Any]:
    """The parameters of a test: each case, named by its kind and its own name."""
    return [
        pytest.param(*case, id=f"{kind}: {name}")
        for kind, cases in kinds.items()
        for name, case in cases.items()
    ]


def assert_becomes(edit: OddEdit, expected: Expected, folder: Path) -> None:
    """Use a damaged dataset for a detector of boxes, and for one of boxes, masks and keypoints."""
    odd = OddSet(folder / "set", exact=expected.exact)
    edit(odd)
    for tasks in (BOXES, ALL_TASKS):
        evaluate = tasks == ALL_TASKS or bool(expected.other)  # all tasks include boxes
        outcome = examine(odd, tasks, folder, evaluate)
        error = expected.error or (expected.other if tasks == ALL_TASKS else "")
        assert re.search(error or "^$", outcome.error), outcome.error
        if error:
            continue
        used = outcome.images, outcome.objects, outcome.masks
        assert tuple(tuple(counts.values()) for counts in used) == (
            expected.images,
            expected.objects,
            expected.masks,
        )
        for index, found in enumerate(outcome.findings.values()):
            assert found == {kind: n[index] for kind, n in expected.findings.items() if n[index]}
        assert set(expected.notes) <= {kind for kinds in outcome.notes.values() for kind in kinds}
