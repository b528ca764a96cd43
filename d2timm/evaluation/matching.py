"""Match detections with annotations by the rules of COCO, and derive COCO's metrics.

annotations and detections -> hotcoco -> precision and recall -> metrics

hotcoco computes what pycocotools does, in Rust; tests compare the two.
"""

from __future__ import annotations

import contextlib
import io
import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from math import nan
from typing import Any, TypeAlias

import hotcoco
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from .detections import ImageDetections, rows, run_lengths

__all__ = [
    "COCO_LIMITS",
    "Annotations",
    "averages",
    "by_class",
    "detection_limit",
    "load",
    "most_in_an_image",
]

Place: TypeAlias = tuple[int, int]  # image and category

#: Detections of an image that COCO evaluates
COCO_LIMITS = {"bbox": 100, "segm": 100, "keypoints": 20}
OTHER_LIMITS = (1, 10)  # for the average recall of objects
SUFFIXES = {"small": "s", "medium": "m", "large": "l"}  # of the metrics of objects of these sizes
AT_50, AT_75 = 0, 5  # indices of thresholds
ALL_SIZES, MOST = 0, -1  # indices of the size ranges and of the limits
#: Fields of annotations that hotcoco reads, and those for a task
READ = ("id", "image_id", "category_id", "bbox", "area", "iscrowd")
READ_FOR = {"bbox": (), "segm": ("segmentation",), "keypoints": ("keypoints", "num_keypoints")}
TINY = 4  # pixels; the mask of a smaller object may cover the centre of no pixel


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
            "images": [{**image, "id": self.images[image["id"]]} for image in dataset["images"]],
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

    def match(
        self,
        annotations: Sequence[Mapping[str, Any]],
        detections: Sequence[ImageDetections],
        task: str,
        image_ids: Sequence[int],
        limit: int,
        sigmas: Sequence[float] = (),
    ) -> Any:
        """Match detections with annotations.

        Args:
            annotations: prepared for the task.
            detections: of images of the dataset.
            task: ``bbox``, ``segm`` or ``keypoints``.
            image_ids: ids of the images that are evaluated.
            limit: number of detections of a class and an image that count.
            sigmas: of keypoints; (): COCO's sigmas of a person.

        Returns:
            hotcoco's evaluation, whose ``eval`` and ``params`` are like those of pycocotools.
        """
        fields = {*READ, *READ_FOR[task]}
        read = [{key: value for key, value in a.items() if key in fields} for a in annotations]
        coco = hotcoco.COCO({**self._dataset, "annotations": read})
        dropped = Counter(_place(a) for a in annotations if not a.get("has_pixels", True))
        found = load(coco, detections, task, self.images, [*self.categories.values()], dropped)
        evaluation = hotcoco.COCOeval(coco, found, task)
        evaluation.params.img_ids = sorted(self.images[i] for i in image_ids)
        if task == "keypoints":
            evaluation.params.max_dets = [limit]
            if sigmas:
                evaluation.params.kpt_oks_sigmas = [*sigmas]
        else:
            evaluation.params.max_dets = [*OTHER_LIMITS, limit]
        evaluation.evaluate()
        evaluation.accumulate()
        return evaluation


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


def load(
    coco: Any,
    detections: Sequence[ImageDetections],
    task: str,
    image_ids: Mapping[int, int],
    category_ids: Sequence[int],
    dropped: Mapping[Place, int] | None = None,
) -> Any:
    """The detections in hotcoco's class, for the evaluation of a task.

    Args:
        coco: the annotations in hotcoco's class.
        detections: of images of the dataset.
        task: ``bbox``, ``segm`` or ``keypoints``.
        image_ids: id in the dataset -> id in ``coco``.
        category_ids: ids of all classes in ``coco``.
        dropped: image and category in ``coco`` -> number of masks without a pixel that are left out.
    """
    table = rows(detections, image_ids, category_ids)
    if task == "bbox" or not len(table):
        return coco.load_res(table)
    if task == "keypoints":
        results = (image.results(image_ids[image.image_id], category_ids) for image in detections)
        return coco.load_res([*itertools.chain.from_iterable(results)])
    masks = run_lengths(detections)
    areas = hotcoco.mask.area(masks)
    if dropped:
        kept = _with_pixels(table, areas, dropped)
        table, areas, masks = table[kept], areas[kept], [masks[index] for index in kept]
    found = coco.load_res(table, segmentation=masks)
    found.update_anns(ids=np.arange(1, len(table) + 1), area=areas)  # which were those of the boxes
    return found


def _with_pixels(table: NDArray[np.float64], areas: NDArray[Any], dropped: Mapping[Place, int]) -> list[int]:
    """Leave out one detection without a pixel for each object without a pixel, which is ignored as well."""
    left, kept = Counter(dropped), []
    for index, area in enumerate(areas.tolist()):
        place = (int(table[index, 0]), int(table[index, -1]))
        if area or not left[place]:
            kept.append(index)
        else:
            left[place] -= 1
    return kept


def _place(entry: Mapping[str, Any]) -> Place:
    return entry["image_id"], entry["category_id"]


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
        evaluation: the result of ``Annotations.match``.
        names: of the classes; classes of the same name get numbers.
    """
    precision, counts = evaluation.eval["precision"], Counter(names)
    return {
        f"AP-{name}" if counts[name] == 1 else f"AP-{name} ({number})": _mean(
            precision[:, :, number - 1, ALL_SIZES, MOST]
        )
        for number, name in enumerate(names, start=1)
    }


def most_in_an_image(image_ids: Iterable[int]) -> int:
    """The largest number of annotations, or of detections, in an image, from the image of each of them."""
    return max(Counter(image_ids).values(), default=0)


def _mean(values: NDArray[np.float64]) -> float:
    valid = values[values > -1]  # -1: there are no objects
    return 100 * float(valid.mean()) if valid.size else nan
