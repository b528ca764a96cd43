"""A small dataset in COCO format that tests damage, and what must hold for whatever is read from it.

Objects are rectangles in the colour of their class, so that the pixels show whether a box, a mask or a
keypoint is where it belongs.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from helpers.data_nodes import data_node
from helpers.errors import error_message
from helpers.evaluation import as_detections, process
from numpy.typing import NDArray
from PIL import Image

from d2timm.data import Mapper, catalog
from d2timm.data.checks.findings import NOTE
from d2timm.data.checks.orientation import Turn

__all__ = [
    "ALL_TASKS",
    "BOXES",
    "FIRST_BOX",
    "MASKS",
    "OddSet",
    "Outcome",
    "describe",
    "examine",
    "turn_back",
    "write_photo",
]

Coco = dict[str, Any]

BOXES = ["bbox"]
MASKS = ["bbox", "segm"]
ALL_TASKS = ["bbox", "segm", "keypoints"]
COLOURS = {"red": (255, 0, 0), "blue": (0, 0, 255)}
SIZES = {"train": [(60, 40), (40, 60), (50, 50)], "val": [(60, 40), (40, 60)]}  # (width, height)
IMAGES, OBJECTS = 3, 6  # of the training split
FIRST_BOX = (4, 6, 20, 10)  # of the first object of each image
LEFT_OUT_OBJECTS = (
    *("invalid_annotation", "unknown_image", "unknown_category", "untrained_class"),
    *("empty_box", "outside_box"),
)


@dataclass
class OddSet:
    """Files of a dataset: six objects in three images for training, four in two for validation.

    Attributes:
        root: the folder of the files.
        content: split -> content of its COCO file.
        keys: of the ``data`` node, besides the paths.
        exact: whether objects that are used are where they are drawn, which the pixels show.
    """

    root: Path
    content: dict[str, Any] = field(default_factory=dict)
    keys: dict[str, Any] = field(default_factory=dict)
    exact: bool = True

    def __post_init__(self) -> None:
        for split, sizes in SIZES.items():
            (self.root / split).mkdir(parents=True)
            self.content[split] = coco = describe(sizes)
            for image in coco["images"]:
                write_photo(self.root / split / image["file_name"], (image["width"], image["height"]))

    @property
    def train(self) -> Any:
        """The content of the training file."""
        return self.content["train"]

    @property
    def val(self) -> Any:
        """The content of the validation file."""
        return self.content["val"]

    @property
    def images(self) -> Path:
        """The folder of the training images."""
        return self.root / "train"

    def write(self, split: str, data: bytes | None = None) -> None:
        """Write the file of a split, or other bytes in its place."""
        text = json.dumps(self.content[split])
        (self.root / f"{split}.json").write_bytes(text.encode() if data is None else data)

    def node(self) -> dict[str, Any]:
        """The ``data`` node that selects the files; files that are missing are written."""
        paths = {}
        for split in SIZES:
            if not (self.root / f"{split}.json").exists():
                self.write(split)
            paths |= {f"{split}_json": str(self.root / f"{split}.json")}
            paths |= {f"{split}_images": str(self.root / split)}
        return data_node(name="custom", **{**paths, **self.keys})


def rectangles(size: Sequence[int]) -> list[tuple[int, int, int, int]]:
    """Boxes of the red and the blue object of an image; they are in opposite corners."""
    return [FIRST_BOX, (size[0] - 16, size[1] - 14, 13, 12)]


def describe(sizes: Sequence[tuple[int, int]]) -> Coco:
    """The content of a COCO file; ids are plain, and objects have boxes, masks and keypoints."""
    images = [
        {"id": i, "file_name": f"{i}.png", "width": width, "height": height}
        for i, (width, height) in enumerate(sizes, start=1)
    ]
    annotations = [
        {
            "id": 2 * i + j,
            "image_id": i + 1,
            "category_id": j,
            "bbox": [x, y, w, h],
            "area": w * h,
            "segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]],
            "keypoints": [x, y, 2, x + w - 1, y + h - 1, 2],
            "num_keypoints": 2,
            "iscrowd": 0,
        }
        for i, size in enumerate(sizes)
        for j, (x, y, w, h) in enumerate(rectangles(size), start=1)
    ]
    categories = [
        {"id": i, "name": name, "keypoints": ["first", "last"]} for i, name in enumerate(COLOURS, start=1)
    ]
    return {"images": images, "annotations": annotations, "categories": categories}


def write_photo(file: Path, shown: tuple[int, int], orientation: int = 1) -> None:
    """Write an image with its two objects.

    Args:
        file: the image.
        shown: (width, height) of the image as shown, in which the objects are at ``rectangles``.
        orientation: EXIF orientation, with which the pixels are stored.
    """
    image = Image.new("RGB", shown, "white")
    for colour, (x, y, w, h) in zip(COLOURS.values(), rectangles(shown), strict=True):
        image.paste(colour, (x, y, x + w, y + h))
    back = turn_back(orientation, shown)
    channels = [Image.fromarray(back.pixels(np.asarray(channel))) for channel in image.split()]
    exif = Image.Exif()
    exif[0x0112] = orientation
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.merge("RGB", channels).save(file, exif=exif, lossless=True)


def turn_back(orientation: int, shown: tuple[int, int]) -> Turn:
    """From an image as shown to the image as stored."""
    inverse = {6: 8, 8: 6}.get(orientation, orientation)  # all others are their own inverse
    return Turn(inverse, shown if orientation < 5 else shown[::-1])


@dataclass
class Outcome:
    """What became of a dataset.

    Attributes:
        error: the message of the ConfigError that rejects it; "" if it can be used.
        images: split -> number of images that are used.
        objects: split -> number of objects that are used, without crowds.
        masks: split -> number of objects with a mask.
        findings: split -> kind of finding -> count, without mere notes.
        notes: split -> kind of note -> count.
    """

    error: str = ""
    images: dict[str, int] = field(default_factory=dict)
    objects: dict[str, int] = field(default_factory=dict)
    masks: dict[str, int] = field(default_factory=dict)
    findings: dict[str, dict[str, int]] = field(default_factory=dict)
    notes: dict[str, dict[str, int]] = field(default_factory=dict)


def examine(odd: OddSet, tasks: Sequence[str], folder: Path, evaluate: bool = True) -> Outcome:
    """Check, load, map and evaluate a dataset as a run does, and assert what must hold for any.

    Args:
        odd: the dataset.
        tasks: the tasks of the detector.
        folder: for files of the evaluation.
        evaluate: whether the ground truth is evaluated as detections.
    """
    node = odd.node()
    node["tasks"] = list(tasks)
    outcome = Outcome()
    if error := error_message(catalog.splits_of, node):
        return _rejected(error)
    named = [split for split in SIZES if node[f"{split}_json"] or node[f"{split}_images"]]
    for split in dict.fromkeys([*named, *catalog.splits_of(node)]):
        if error := error_message(catalog.check_split, node, split, tasks):
            return _rejected(error)
        coco = catalog.get_dataset(node).split(split).coco  # type: ignore[attr-defined]
        findings = catalog.findings_of(node, split)
        _assert_all_samples_are_listed(findings)
        _assert_nothing_is_lost(odd.content[split], coco, findings.counts)
        notes = set(findings.of(NOTE))
        objects = [a for a in coco["annotations"] if not a["iscrowd"]]
        outcome.images[split] = len(coco["images"])
        outcome.objects[split] = len(objects)
        outcome.masks[split] = sum("segmentation" in a for a in objects)
        outcome.findings[split] = {k: n for k, n in findings.counts.items() if k not in notes}
        outcome.notes[split] = {k: n for k, n in findings.counts.items() if k in notes}
        _assert_examples(node, split, tasks, coco, odd.exact)
        if evaluate and split == "val":
            _assert_scores(node, coco, tasks, folder)
    return outcome


def _rejected(error: str) -> Outcome:
    assert "\n" not in error
    return Outcome(error)


def _assert_all_samples_are_listed(findings: Any) -> None:
    for kind, samples in findings.samples.items():
        assert len(samples) == findings.counts[kind] <= 100
        assert all("\n" not in sample for sample in samples)
        assert all(sample.encode() for sample in samples)  # without halves of characters


def _assert_nothing_is_lost(raw: Any, coco: Coco, counts: dict[str, int]) -> None:
    """Each annotation is used, or counted, or left out with its image, or counted and left out."""
    used = {_number(image.get("original_id", image["id"])) for image in coco["images"]}
    listed = {_number(image.get("id")) for image in raw["images"]}
    with_images = sum(_number(a.get("image_id")) in listed - used for a in raw["annotations"])
    left_out = sum(counts.get(kind, 0) for kind in LEFT_OUT_OBJECTS)
    assert len(raw["annotations"]) <= len(coco["annotations"]) + left_out + with_images


def _number(value: Any) -> Any:
    """An id as a number if it is one, also as text."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return str(value)
    return str(value) if math.isnan(number) else number


def _assert_examples(node: Any, split: str, tasks: Sequence[str], coco: Coco, exact: bool) -> None:
    """All objects of the cleaned file arrive in the input of the detector, at their places."""
    names = catalog.keypoint_names(node)
    masks = "segm" in tasks
    mapper = Mapper(True, tasks, [], "RGB", names, "bitmask" if masks else "polygon", partial_masks=masks)
    classes = catalog.class_names(node)
    # classes without a usable name are in the order of the colours
    colours = [COLOURS.get(name, other) for name, other in zip(classes, cycle(COLOURS.values()))]
    count = 0
    for entry in catalog.dataset_dicts(node, split):
        example = mapper(entry)
        instances, pixels = example["instances"], example["image"].permute(1, 2, 0).numpy()
        count += len(instances)
        for i in range(len(instances) if exact else 0):
            colour = colours[instances.gt_classes[i]]
            box = instances.gt_boxes.tensor[i].numpy().round().astype(int)
            _assert_filled(pixels, box, colour)
            if masks and instances.gt_has_mask[i]:
                _assert_covers(instances.gt_masks.tensor[i].numpy(), box)
            if instances.has("gt_keypoints"):
                for x, y, visibility in instances.gt_keypoints.tensor[i].numpy():
                    assert not visibility or (pixels[int(y), int(x)] == colour).all()
    objects = [a for a in coco["annotations"] if not a["iscrowd"]]
    if split == "val" or "keypoints" not in tasks:  # images without keypoints are not used in training
        assert count == len(objects)


def _assert_filled(pixels: NDArray[Any], box: Sequence[int], colour: Sequence[int]) -> None:
    """A box has the colour of its class, and the pixels around it have not."""
    x0, y0, x1, y1 = box
    assert (pixels[y0:y1, x0:x1] == colour).all()
    around = pixels[max(y0 - 1, 0) : y1 + 1, max(x0 - 1, 0) : x1 + 1].reshape(-1, 3)
    assert (around == colour).all(axis=1).sum() == (x1 - x0) * (y1 - y0)


def _assert_covers(mask: NDArray[Any], box: Sequence[int]) -> None:
    x0, y0, x1, y1 = box
    assert mask.sum() == mask[y0:y1, x0:x1].sum() == (x1 - x0) * (y1 - y0)


def _assert_scores(node: Any, coco: Coco, tasks: Sequence[str], folder: Path) -> None:
    """Ground truth given as detections scores 100."""
    (evaluator,) = catalog.evaluators(node, "val", str(folder))
    evaluator.reset()
    detections = as_detections(coco, tasks)
    for detection in detections if "keypoints" in tasks else ():
        x, y, w, h = detection["bbox"]
        points = np.reshape(detection["keypoints"], (-1, 3))
        guess = np.where(
            points[:, 2:] > 0, points, (x + w / 2, y + h / 2, 1)
        )  # as a detector, which guesses all
        detection["keypoints"] = guess.ravel().tolist()
    results = process(evaluator, coco, detections)
    assert set(results) == set(tasks)
    for task in tasks:
        ap = results[task]["AP"]
        assert math.isclose(ap, 100, abs_tol=0.01) or math.isnan(ap), (task, ap)
    assert not math.isnan(results["bbox"]["AP"])


Edit = Callable[[OddSet], Any]
