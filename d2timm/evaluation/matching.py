"""Match detections with annotations by the rules of COCO, and derive COCO's metrics.

annotations and detections -> pycocotools or faster-coco-eval -> precision and recall -> metrics
"""

from __future__ import annotations

import contextlib
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from math import nan
from typing import Any

import numpy as np
from faster_coco_eval import COCOeval_faster
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

__all__ = [
    "COCO_LIMITS",
    "Annotations",
    "averages",
    "by_class",
    "detection_limit",
    "match",
    "most_in_an_image",
]

#: Detections of an image that COCO evaluates
COCO_LIMITS = {"bbox": 100, "segm": 100, "keypoints": 20}
OTHER_LIMITS = (1, 10)  # for the average recall of objects
SUFFIXES = {"small": "s", "medium": "m", "large": "l"}  # of the metrics of objects of these sizes
AT_50, AT_75 = 0, 5  # indices of thresholds
ALL_SIZES, MOST = 0, -1  # indices of the size ranges and of the limits
TINY = 4  # pixels; the mask of a smaller object may cover the centre of no pixel


class Annotations:
    """The annotations of a dataset with the fields that the evaluation reads and that files may lack.

    Images, categories and annotations are numbered from 1, in the order of their ids: pycocotools treats a
    match with the annotation 0 as no match, and faster-coco-eval does not accept negative ids.

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
            "images": [{**image, "id": self.images[image["id"]]} for image in dataset["images"]],
            "categories": [{"id": number} for number in self.categories.values()],
        }
        known = [
            annotation
            for annotation in dataset["annotations"]
            if annotation["image_id"] in self.images and annotation["category_id"] in self.categories
        ]
        completed = [_complete(a, number) for number, a in enumerate(self.numbered(known), start=1)]
        self._coco = self._indexed(completed)

    def numbered(self, entries: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Annotations or detections with the numbers of their images and categories."""
        places = {"image_id": self.images, "category_id": self.categories}
        return [{**e, **{key: numbers[e[key]] for key, numbers in places.items()}} for e in entries]

    def prepared(self, task: str, keypoints: int = 0) -> COCO:
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
        return self._indexed(annotations)

    def _with_mask(self, annotation: dict[str, Any]) -> dict[str, Any]:
        x, y, width, height = annotation["bbox"]
        has_pixels = bool(annotation.get("segmentation"))
        if has_pixels and (min(width, height) < TINY or annotation["area"] < TINY**2):
            has_pixels = bool(coco_mask.area(self._coco.annToRLE(annotation)))
        if has_pixels:
            return annotation
        region = [[x, y, x + width, y, x + width, y + height, x, y + height]]
        return {**annotation, "iscrowd": 1, "segmentation": region, "has_pixels": False}

    def _indexed(self, annotations: list[dict[str, Any]]) -> COCO:
        coco = COCO()
        coco.dataset = {**self._dataset, "annotations": annotations}
        with contextlib.redirect_stdout(io.StringIO()):
            coco.createIndex()
        return coco


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


def detection_limit(task: str, detections: int, objects: int) -> int:
    """The number of detections of an image that count.

    It is COCO's limit, unless that cuts off what the detector keeps, or makes full recall impossible.

    Args:
        task: ``bbox``, ``segm`` or ``keypoints``.
        detections: the most detections that the detector keeps, or has made, in an image.
        objects: the most annotated objects in an image.
    """
    usual = COCO_LIMITS[task]
    if detections <= max(COCO_LIMITS.values()) and objects <= usual:
        return usual  # also for keypoints of 100 detections, of which COCO evaluates 20
    return max(detections, usual)


def match(
    coco: COCO,
    detections: Sequence[Mapping[str, Any]],
    task: str,
    image_ids: Sequence[int],
    limit: int,
    sigmas: Sequence[float] = (),
) -> Any:
    """Match detections with annotations.

    Args:
        coco: annotations, prepared for the task.
        detections: in COCO's format of results, with the numbers of images and categories.
        task: ``bbox``, ``segm`` or ``keypoints``.
        image_ids: numbers of the images that are evaluated.
        limit: number of detections of a class and an image that count.
        sigmas: of keypoints; (): COCO's sigmas of a person.

    Returns:
        pycocotools' evaluation with its ``eval`` and ``params``.
    """
    if task == "segm":
        detections = _with_pixels(coco, detections)
    # with boxes, the areas of masks would be computed from them; pycocotools changes the detections
    unused = {"bbox"} if task == "segm" else set[str]()
    own = [{key: value for key, value in d.items() if key not in unused} for d in detections]
    with contextlib.redirect_stdout(io.StringIO()):
        found = coco.loadRes(own) if own else _nothing(coco)
        if task == "keypoints":  # for which the faster one would need a COCO class of its own
            evaluation = COCOeval(coco, found, task)
            evaluation.params.maxDets = [limit]
            if sigmas:
                evaluation.params.kpt_oks_sigmas = np.array(sigmas)
        else:
            evaluation = COCOeval_faster(coco, found, task)
            evaluation.params.maxDets = [*OTHER_LIMITS, limit]
        evaluation.params.imgIds = sorted(image_ids)
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation


def _with_pixels(coco: COCO, detections: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Leave out one detection without a pixel for each object without a pixel, which is ignored as well."""
    lacking = Counter(_place(a) for a in coco.dataset["annotations"] if not a.get("has_pixels", True))
    kept = []
    for detection in detections:
        if lacking[_place(detection)] and not coco_mask.area(detection["segmentation"]):
            lacking[_place(detection)] -= 1
        else:
            kept.append(detection)
    return kept


def _place(entry: Mapping[str, Any]) -> tuple[int, int]:
    return entry["image_id"], entry["category_id"]


def _nothing(coco: COCO) -> COCO:
    """No detections, which ``loadRes`` does not take."""
    found = COCO()
    found.dataset = {**coco.dataset, "annotations": []}
    found.createIndex()
    return found


def averages(evaluation: Any) -> dict[str, float]:
    """COCO's metrics in percent, in the order of its summary; NaN for sizes without objects."""
    precision, recall = evaluation.eval["precision"], evaluation.eval["recall"]
    params = evaluation.params
    sizes = [(i, SUFFIXES[label]) for i, label in enumerate(params.areaRngLbl) if i != ALL_SIZES]
    average = precision[..., ALL_SIZES, MOST]
    metrics = {"AP": _mean(average), "AP50": _mean(average[AT_50]), "AP75": _mean(average[AT_75])}
    metrics |= {f"AP{suffix}": _mean(precision[..., i, MOST]) for i, suffix in sizes}
    if params.iouType == "keypoints":
        found = recall[..., ALL_SIZES, MOST]
        metrics |= {"AR": _mean(found), "AR50": _mean(found[AT_50]), "AR75": _mean(found[AT_75])}
    else:
        metrics |= {f"AR{limit}": _mean(recall[..., ALL_SIZES, i]) for i, limit in enumerate(params.maxDets)}
    return metrics | {f"AR{suffix}": _mean(recall[..., i, MOST]) for i, suffix in sizes}


def by_class(evaluation: Any, names: Sequence[str]) -> dict[str, float]:
    """The AP of each class in percent, NaN for classes without objects.

    Args:
        evaluation: the result of ``match``.
        names: of the classes; classes of the same name get numbers.
    """
    precision, counts = evaluation.eval["precision"], Counter(names)
    return {
        f"AP-{name}" if counts[name] == 1 else f"AP-{name} ({number})": _mean(
            precision[:, :, number - 1, ALL_SIZES, MOST]
        )
        for number, name in enumerate(names, start=1)
    }


def most_in_an_image(annotations: Sequence[Mapping[str, Any]]) -> int:
    """The largest number of annotations, or of detections, in an image."""
    return max(Counter(annotation["image_id"] for annotation in annotations).values(), default=0)


def _mean(values: NDArray[np.float64]) -> float:
    valid = values[values > -1]  # -1: there are no objects
    return 100 * float(valid.mean()) if valid.size else nan
