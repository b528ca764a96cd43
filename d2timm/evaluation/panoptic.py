"""Panoptic quality (Kirillov et al., CVPR 2019, https://arxiv.org/abs/1801.00868).

detectron2's evaluator needs the package panopticapi, which cannot be installed together with NumPy 2. This
evaluator counts image by image, and writes no files.
"""

from __future__ import annotations

import itertools
import logging
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from detectron2.data import DatasetCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from numpy.typing import NDArray
from tabulate import tabulate

__all__ = ["Counts", "PanopticEvaluator", "compare"]

Segments = Sequence[Mapping[str, Any]]
Class = tuple[bool, int]  # whether it is a thing class, and its index
Counts = dict[Class, "NDArray[np.float64]"]  # sum of IoU, true positives, false positives, false negatives

METRICS = ("PQ", "SQ", "RQ")
MATCH = 0.5  # segments match above this IoU, so that each matches at most one other
UNLABELLED = -1  # stands for all ids in the ground truth that no segment has
IGNORED = 0.5  # a predicted segment is ignored if a larger share of it is unlabelled or crowd


def compare(
    gt_ids: NDArray[np.int64],
    gt_segments: Segments,
    predicted_ids: NDArray[np.int64],
    predicted_segments: Segments,
) -> Counts:
    """Match the predicted segments of an image with its ground truth.

    Args:
        gt_ids: (H, W) ids of the ground-truth segments; pixels with other ids are unlabelled.
        gt_segments: ``id``, ``isthing``, ``category_id`` and ``iscrowd`` of each ground-truth segment.
        predicted_ids: (H, W) ids of the predicted segments.
        predicted_segments: ``id``, ``isthing`` and ``category_id`` of each predicted segment.

    Returns:
        Class -> sum of IoU, true positives, false positives and false negatives.
    """
    counts: Counts = defaultdict(lambda: np.zeros(4))
    by_id = {segment["id"]: segment for segment in gt_segments}
    overlaps = _overlaps(gt_ids, predicted_ids, set(by_id))
    gt_areas, predicted_areas = (_areas(overlaps, side) for side in (0, 1))
    unmatched = {number for number, segment in by_id.items() if not segment["iscrowd"]}
    for segment in predicted_segments:
        number, category = segment["id"], _class(segment)
        candidates = [gt for gt, other in by_id.items() if _class(other) == category]
        area, unlabelled = predicted_areas[number], overlaps.get((UNLABELLED, number), 0)
        ious = {
            gt: overlap / (area + gt_areas[gt] - overlap - unlabelled)
            for gt in unmatched.intersection(candidates)
            if (overlap := overlaps.get((gt, number)))
        }
        match = max(ious, key=lambda gt: ious[gt], default=UNLABELLED)
        if ious.get(match, 0) > MATCH:
            counts[category] += [ious[match], 1, 0, 0]
            unmatched.remove(match)
            continue
        crowd = sum(overlaps.get((gt, number), 0) for gt in candidates if by_id[gt]["iscrowd"])
        if area and unlabelled + crowd <= IGNORED * area:
            counts[category] += [0, 0, 1, 0]
    for number in unmatched:
        counts[_class(by_id[number])] += [0, 0, 0, 1]
    return dict(counts)


class PanopticEvaluator(DatasetEvaluator):
    """Panoptic, segmentation and recognition quality: of all classes, of things and of stuff.

    Args:
        name: a registered dataset split whose images have panoptic maps.
        read: returns the (H, W) ids of the segments in the file of a panoptic map.

    Attributes:
        notes: what is special about the last evaluation, for the record of the run.
    """

    def __init__(self, name: str, read: Callable[[str], NDArray[np.int64]]) -> None:
        self._read = read
        self._entries = {entry["image_id"]: entry for entry in DatasetCatalog.get(name)}
        self.reset()

    def reset(self) -> None:
        """Discard all counts."""
        self._counts: list[Counts] = []
        self.notes: list[str] = []

    def process(self, inputs: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Any]]) -> None:
        """Count the segments of a batch."""
        for image, output in zip(inputs, outputs, strict=True):
            entry = self._entries[image["image_id"]]
            predicted_ids, segments = output["panoptic_seg"]
            gt_ids = self._read(entry["pan_seg_file_name"])
            self._counts.append(
                compare(gt_ids, entry["segments_info"], predicted_ids.cpu().numpy(), segments)
            )

    def evaluate(self) -> dict[str, dict[str, float]] | None:
        """Return metrics in percent, NaN where there are no classes; None except in the main process."""
        gathered = comm.gather(self._counts)
        if not comm.is_main_process():
            return None
        self.notes = [] if any(gathered) else ["no image was evaluated"]
        total: Counts = defaultdict(lambda: np.zeros(4))
        for counts in itertools.chain.from_iterable(gathered):
            for category, count in counts.items():
                total[category] += count
        results: dict[str, float] = {}
        rows = []
        for label, suffix, categories in (
            ("all", "", list(total)),
            ("things", "_th", [category for category in total if category[0]]),
            ("stuff", "_st", [category for category in total if not category[0]]),
        ):
            quality = [np.nan] * 3
            if categories:
                quality = 100 * np.mean([_quality(total[category]) for category in categories], axis=0)
            results |= {f"{name}{suffix}": float(q) for name, q in zip(METRICS, quality, strict=True)}
            rows.append([label, *quality, len(categories)])
        table = tabulate(rows, ["", *METRICS, "classes"], tablefmt="pipe", floatfmt=".3f")
        logging.getLogger(__name__).info("Panoptic quality:\n%s", table)
        return {"panoptic_seg": results}


def _class(segment: Mapping[str, Any]) -> Class:
    return bool(segment["isthing"]), int(segment["category_id"])


def _overlaps(
    gt_ids: NDArray[np.int64], predicted_ids: NDArray[np.int64], known: set[int]
) -> dict[tuple[int, int], int]:
    """(ground-truth id, predicted id) -> number of common pixels; ids not in ``known`` become UNLABELLED."""
    width = int(predicted_ids.max()) + 1
    overlaps: dict[tuple[int, int], int] = defaultdict(int)
    codes, pixels = np.unique(gt_ids.astype(np.int64) * width + predicted_ids, return_counts=True)
    for code, count in zip(codes.tolist(), pixels.tolist(), strict=True):
        gt, predicted = divmod(code, width)
        overlaps[gt if gt in known else UNLABELLED, predicted] += count
    return overlaps


def _areas(overlaps: Mapping[tuple[int, int], int], side: int) -> dict[int, int]:
    """Id -> number of pixels, of one side of the pairs in ``overlaps``."""
    areas: dict[int, int] = defaultdict(int)
    for pair, count in overlaps.items():
        areas[pair[side]] += count
    return areas


def _quality(counts: NDArray[np.float64]) -> tuple[float, float, float]:
    """Panoptic, segmentation and recognition quality of a class, 0 to 1."""
    iou, true_positives, false_positives, false_negatives = counts
    total = true_positives + false_positives / 2 + false_negatives / 2
    if not total:
        return 0.0, 0.0, 0.0
    return iou / total, iou / true_positives if true_positives else 0.0, true_positives / total
