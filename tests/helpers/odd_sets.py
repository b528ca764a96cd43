"""A small dataset in COCO format that tests damage, and what must hold for whatever is read from it.

Objects are rectangles in the colour of their class, so that the pixels show whether a box, a mask or a keypoint
is where it belongs.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
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

__all__ = ["ALL_TASKS", "BOXES", "MASKS", "OddSet", "Outcome", "examine", "write_photo"]

Coco = dict[str, Any]

BOXES = ["bbox"]
MASKS = ["bbox", "segm"]
ALL_TASKS = ["bbox", "segm", "keypoints"]
COLOURS = {"red": (255, 0, 0), "blue": (0, 0, 255)}
SIZES = {"train": [(60, 40), (40, 60), (50, 50)], "val": [(60, 40), (40, 60)]}  # (width, height)
IMAGES, OBJECTS = 3, 6  # of the training split
#: Boxes of the two objects of an image: the first is in the image whichever way it is rotated
RECTANGLES = ((4, 6, 20, 10), (10, 22, 14, 12))
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
    """

    root: Path
    content: dict[str, Any] = field(default_factory=dict)
    keys: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for split, sizes in SIZES.items():
            (self.root / split).mkdir(parents=True)
            self.content[split] = coco = _describe(sizes)
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


def _describe(sizes: Sequence[tuple[int, int]]) -> Coco:
    """The content of a COCO file; ids are plain, and objects have boxes, masks and keypoints."""
    images = [
        {"id": i, "file_name": f"{i}.png", "width": width, "height": height}
        for i, (width, height) in enumerate(sizes, start=1)
    ]
    annotations = [
        {
            "id": len(RECTANGLES) * i + j,
            "image_id": i + 1,
            "category_id": j,
            "bbox": [x, y, w, h],
            "area": w * h,
            "segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]],
            "keypoints": [x, y, 2, x + w - 1, y + h - 1, 2],
            "num_keypoints": 2,
            "iscrowd": 0,
        }
        for i in range(len(images))
        for j, (x, y, w, h) in enumerate(RECTANGLES, start=1)
    ]
    categories = [
        {"id": i, "name": name, "keypoints": ["first", "last"]} for i, name in enumerate(COLOURS, start=1)
    ]
    return {"images": images, "annotations": annotations, "categories": categories}


def write_photo(file: Path, shown: tuple[int, int], orientation: int = 1, **options: Any) -> None:
    """Write an image whose objects are at ``RECTANGLES`` when it is shown.

    Args:
        file: the image.
        shown: (width, height) as shown.
        orientation: EXIF orientation, with which the pixels are stored.
        options: of ``PIL.Image.save``.
    """
    image = Image.new("RGB", shown, "white")
    for colour, (x, y, w, h) in zip(COLOURS.values(), RECTANGLES, strict=True):
        image.paste(colour, (x, y, x + w, y + h))
    undone = {6: 8, 8: 6}.get(orientation, orientation)  # all other orientations are their own inverse
    stored = shown if orientation < 5 else shown[::-1]
    turn = Turn(undone, stored)
    channels = [Image.fromarray(turn.pixels(np.asarray(channel))) for channel in image.split()]
    exif = Image.Exif()
    exif[0x0112] = orientation
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.merge("RGB", channels).save(file, exif=exif, **options)


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


def examine(odd: OddSet, tasks: Sequence[str], folder: Path, exact: bool = True) -> Outcome:
    """Check, load, map and evaluate a dataset as a run does, and assert what must hold for any.

    Args:
        odd: the dataset.
        tasks: the tasks of the detector.
        folder: for files of the evaluation.
        exact: whether objects are where they are drawn, which the pixels show.
    """
    node = odd.node()
    node["tasks"] = list(tasks)
    outcome = Outcome()
    if error := error_message(catalog.splits_of, node):
        return _rejected(error)
    for split in catalog.splits_of(node):
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
        _assert_examples(node, split, tasks, coco, exact)
        if split == "val":
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
    """Each annotation of an image that is used is used as well, or counted."""
    kept = {str(image.get("original_id", image["id"])) for image in coco["images"]}
    unused = sum(str(a.get("image_id")) not in kept for a in raw["annotations"]) - counts.get(
        "unknown_image", 0
    )
    left_out = sum(counts.get(kind, 0) for kind in LEFT_OUT_OBJECTS)
    assert len(raw["annotations"]) == len(coco["annotations"]) + left_out + unused


def _assert_examples(node: Any, split: str, tasks: Sequence[str], coco: Coco, exact: bool) -> None:
    """All objects of the cleaned file arrive in the input of the detector, at their places."""
    names = catalog.keypoint_names(node)
    mapper = Mapper(True, tasks, [], "RGB", names, "bitmask" if "segm" in tasks else "polygon")
    classes = catalog.class_names(node)
    count = 0
    for entry in catalog.dataset_dicts(node, split):
        example = mapper(entry)
        instances, pixels = example["instances"], example["image"].permute(1, 2, 0).numpy()
        count += len(instances)
        for i in range(len(instances) if exact else 0):
            colour = COLOURS[classes[instances.gt_classes[i]]]
            box = instances.gt_boxes.tensor[i].numpy().round().astype(int)
            _assert_filled(pixels, box, colour)
            if instances.has("gt_masks") and (mask := instances.gt_masks.tensor[i].numpy()).any():
                _assert_covers(mask, box)
            if instances.has("gt_keypoints"):
                for x, y, visibility in instances.gt_keypoints.tensor[i].numpy():
                    assert not visibility or (pixels[int(y), int(x)] == colour).all()
    needed = [
        a for a in coco["annotations"] if not a["iscrowd"] and ("segm" not in tasks or "segmentation" in a)
    ]
    assert count >= len(needed)


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
    results = process(evaluator, coco, as_detections(coco, tasks))
    assert set(results) == set(tasks)
    for task in tasks:
        ap = results[task]["AP"]
        assert math.isclose(ap, 100, abs_tol=0.01) or math.isnan(ap), (task, ap)
    assert not math.isnan(results["bbox"]["AP"])


Edit = Callable[[OddSet], Any]
