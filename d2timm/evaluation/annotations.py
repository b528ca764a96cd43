"""The annotations of a dataset, completed for the evaluation of a task."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from typing import Any

from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

__all__ = ["Annotations"]

TINY = 4  # pixels; the mask of a smaller object may cover the centre of no pixel
SIZE = ("height", "width")
#: Fields of annotations that an evaluation reads, and those for a task
READ = ("id", "image_id", "category_id", "bbox", "area", "iscrowd")
READ_FOR = {"bbox": (), "segm": ("segmentation",), "keypoints": ("keypoints", "num_keypoints")}


class Annotations:
    """The annotations of a dataset with the fields that the evaluation reads and that files may lack.

    Images, categories and annotations are numbered from 1, in the order of their ids: pycocotools treats a
    match with the annotation 0 as no match, and hotcoco accepts no negative ids.

    Args:
        dataset: the content of a COCO file.
        classes: category id -> index of the class.

    Attributes:
        images: image id -> number.
        categories: category id -> number, the index of the class plus 1.
    """

    def __init__(self, dataset: Mapping[str, Any], classes: Mapping[int, int]) -> None:
        # detections of equal scores are ranked in this order
        ids = sorted(image["id"] for image in dataset["images"])
        self.images = {i: number for number, i in enumerate(ids, start=1)}
        self.categories = {category: index + 1 for category, index in classes.items()}
        self._dataset = {
            "images": [
                {**{key: image[key] for key in SIZE if key in image}, "id": self.images[image["id"]]}
                for image in dataset["images"]
            ],
            "categories": [{"id": n, "name": f"{n}"} for n in self.categories.values()],
        }
        known = [
            annotation
            for annotation in dataset["annotations"]
            if annotation["image_id"] in self.images and annotation["category_id"] in self.categories
        ]
        completed = [_complete(self._numbered(a), number) for number, a in enumerate(known, start=1)]
        self._coco = COCO()
        self._coco.dataset = {**self._dataset, "annotations": completed}
        with contextlib.redirect_stdout(io.StringIO()):
            self._coco.createIndex()

    def _numbered(self, annotation: Mapping[str, Any]) -> dict[str, Any]:
        numbers = {"image_id": self.images, "category_id": self.categories}
        return {**annotation, **{key: of[annotation[key]] for key, of in numbers.items()}}

    def prepared(self, task: str, keypoints: int = 0) -> list[dict[str, Any]]:
        """The annotations for a task; objects that lack what the task evaluates are ignored, like crowds.

        So are the detections in the box of an object without a mask, and near the box of an object without
        keypoints, as COCO defines it.

        Args:
            task: ``bbox``, ``segm`` or ``keypoints``.
            keypoints: the number of keypoints of an object.
        """
        annotations: list[dict[str, Any]] = self._coco.dataset["annotations"]
        if task == "segm":
            annotations = [self._with_mask(annotation) for annotation in annotations]
        elif task == "keypoints":
            annotations = [_with_keypoints(annotation, keypoints) for annotation in annotations]
        return annotations

    def _with_mask(self, annotation: dict[str, Any]) -> dict[str, Any]:
        x, y, width, height = annotation["bbox"]
        has_pixels = bool(annotation.get("segmentation"))
        if has_pixels and (min(width, height) < TINY or annotation["area"] < TINY**2):
            has_pixels = bool(coco_mask.area(self._coco.annToRLE(annotation)))
        if has_pixels:
            return annotation
        region = [[x, y, x + width, y, x + width, y + height, x, y + height]]
        return {**annotation, "iscrowd": 1, "segmentation": region, "has_pixels": False}

    def content(self, annotations: Sequence[Mapping[str, Any]], task: str) -> dict[str, Any]:
        """The content of a COCO file with prepared annotations, reduced to what the evaluation reads."""
        fields = {*READ, *READ_FOR[task]}
        read = [{key: value for key, value in a.items() if key in fields} for a in annotations]
        return {**self._dataset, "annotations": read}


def _complete(annotation: dict[str, Any], number: int) -> dict[str, Any]:
    width, height = annotation["bbox"][2:]
    labelled = sum(visibility > 0 for visibility in (annotation.get("keypoints") or [])[2::3])
    defaults = {"iscrowd": 0, "area": width * height, "num_keypoints": labelled}
    lacking = {key: value for key, value in defaults.items() if annotation.get(key) is None}
    return {**annotation, **lacking, "id": number}


def _with_keypoints(annotation: dict[str, Any], count: int) -> dict[str, Any]:
    if annotation.get("keypoints"):
        return annotation
    return {**annotation, "iscrowd": 1, "keypoints": [0] * 3 * count, "num_keypoints": 0}
