"""Match detections with annotations by the rules of COCO, and derive COCO's metrics.

annotations and detections -> hotcoco -> precision and recall -> metrics

hotcoco computes what pycocotools does, in Rust; tests compare the two.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from math import nan
from typing import Any, TypeAlias

import hotcoco
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from .annotations import Annotations
from .detections import ImageDetections, rows, run_lengths

__all__ = [
    "COCO_LIMITS",
    "averages",
    "by_class",
    "detection_limit",
    "has_threads",
    "load",
    "match",
    "most_in_an_image",
]

Place: TypeAlias = tuple[int, int]  # image and category

#: Detections of an image that COCO evaluates
COCO_LIMITS = {"bbox": 100, "segm": 100, "keypoints": 20}
OTHER_LIMITS = (1, 10)  # for the average recall of objects
SUFFIXES = {"small": "s", "medium": "m", "large": "l"}  # of the metrics of objects of these sizes
AT_50, AT_75 = 0, 5  # indices of thresholds
ALL_SIZES, MOST = 0, -1  # indices of the size ranges and of the limits

_processes: set[int] = set()  # the one in which hotcoco has started its threads


def has_threads() -> bool:
    """Whether hotcoco has threads in this process, or can start them.

    A process that is forked from one in which it has evaluated lacks them, and hotcoco would wait for them.
    """
    if not _processes:
        _processes.add(os.getpid())
    return os.getpid() in _processes


def match(
    dataset: Annotations,
    annotations: Sequence[Mapping[str, Any]],
    detections: Sequence[ImageDetections],
    task: str,
    image_ids: Sequence[int],
    limit: int,
    sigmas: Sequence[float] = (),
) -> Any:
    """Match detections with annotations.

    Args:
        dataset: the dataset.
        annotations: of the dataset, prepared for the task.
        detections: of images of the dataset.
        task: ``bbox``, ``segm`` or ``keypoints``.
        image_ids: ids of the images that are evaluated.
        limit: number of detections of a class and an image that count.
        sigmas: of keypoints; (): COCO's sigmas of a person.

    Returns:
        hotcoco's evaluation, whose ``eval`` and ``params`` are like those of pycocotools; that of pycocotools
        in a process that is forked from one that has evaluated.
    """
    content = dataset.content(annotations, task)
    places = dataset.images, [*dataset.categories.values()]
    dropped = Counter(_place(a) for a in annotations if not a.get("has_pixels", True))
    evaluation: Any
    if has_threads():
        coco = hotcoco.COCO(content)
        evaluation = hotcoco.COCOeval(coco, load(coco, detections, task, *places, dropped), task)
    else:
        evaluation = _of_pycocotools(content, detections, task, *places, dropped)
    evaluation.params.imgIds = sorted(dataset.images[i] for i in image_ids)
    evaluation.params.maxDets = [limit] if task == "keypoints" else [*OTHER_LIMITS, limit]
    if sigmas:
        evaluation.params.kpt_oks_sigmas = np.array(sigmas)
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation


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
        kept = _with_pixels(table[:, [0, -1]], areas, dropped)
        table, areas, masks = table[kept], areas[kept], [masks[index] for index in kept]
    found = coco.load_res(table, segmentation=masks)
    found.update_anns(ids=np.arange(1, len(table) + 1), area=areas)  # which were those of the boxes
    return found


def _of_pycocotools(
    content: dict[str, Any],
    detections: Sequence[ImageDetections],
    task: str,
    image_ids: Mapping[int, int],
    category_ids: Sequence[int],
    dropped: Mapping[Place, int],
) -> COCOeval:
    """The evaluation by pycocotools, slower and equal; see ``load`` for the arguments."""
    results = [r for image in detections for r in image.results(image_ids[image.image_id], category_ids)]
    if task == "segm":
        areas = np.array([coco_mask.area(result["segmentation"]) for result in results])
        places = np.array([_place(result) for result in results]).reshape(-1, 2)
        results = [results[index] for index in _with_pixels(places, areas, dropped)]
        for result in results:
            del result["bbox"]  # with it, the areas of masks would be those of the boxes
    coco, found = COCO(), COCO()
    coco.dataset = content
    found.dataset = {**content, "annotations": []}
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
        found.createIndex()
        return COCOeval(coco, coco.loadRes(results) if results else found, task)


def _with_pixels(places: NDArray[Any], areas: NDArray[Any], dropped: Mapping[Place, int]) -> list[int]:
    """Leave out one detection without a pixel for each object without a pixel, which is ignored as well."""
    left, kept = Counter(dropped), []
    for index, ((image, category), area) in enumerate(zip(places.tolist(), areas.tolist(), strict=True)):
        if area or not left[image, category]:
            kept.append(index)
        else:
            left[image, category] -= 1
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


def most_in_an_image(image_ids: Iterable[int]) -> int:
    """The largest number of annotations, or of detections, in an image, from the image of each of them."""
    return max(Counter(image_ids).values(), default=0)


def _mean(values: NDArray[np.float64]) -> float:
    valid = values[values > -1]  # -1: there are no objects
    return 100 * float(valid.mean()) if valid.size else nan
