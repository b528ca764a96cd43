"""Panoptic quality (Kirillov et al., CVPR 2019, https://arxiv.org/abs/1801.00868).

The package that COCO's own evaluation comes in, and with it detectron2's evaluator, cannot be installed
beside NumPy 2. This one counts image by image, without files in between.
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
Class = tuple[bool, int]  # whether it is one of objects, and its number
Counts = dict[Class, "NDArray[np.float64]"]  # sum of IoU, true positives, false positives, false negatives

NAMES = ("PQ", "SQ", "RQ")
MATCH = 0.5  # IoU above which segments match; then each matches one at most
NONE = -1  # number of what has no truth
OUTSIDE = 0.5  # share of a segment without truth above which it is not counted


def compare(
    truth: NDArray[np.int64], true_segments: Segments, found: NDArray[np.int64], found_segments: Segments
) -> Counts:
    """Match the segments of an image.

    Args:
        truth: (H, W) numbers of segments; those that ``true_segments`` does not name have no truth.
        true_segments: ``id``, ``isthing``, ``category_id`` and ``iscrowd`` of each.
        found: (H, W) numbers of segments.
        found_segments: ``id``, ``isthing`` and ``category_id`` of each.

    Returns:
        Class -> sum of IoU, true positives, false positives and false negatives.
    """
    counts: Counts = defaultdict(lambda: np.zeros(4))
    true = {segment["id"]: segment for segment in true_segments}
    overlaps = _overlaps(truth, found, set(true))
    areas = [_areas(overlaps, side) for side in (0, 1)]
    missing = {number for number, segment in true.items() if not segment["iscrowd"]}
    for segment in found_segments:
        number, kind = segment["id"], _class(segment)
        alike = [a for a, other in true.items() if _class(other) == kind]
        area, unknown = areas[1][number], overlaps.get((NONE, number), 0)
        ious = {
            a: overlap / (area + areas[0][a] - overlap - unknown)
            for a in missing.intersection(alike)
            if (overlap := overlaps.get((a, number)))
        }
        match = max(ious, key=lambda a: ious[a], default=NONE)
        if ious.get(match, 0) > MATCH:
            counts[kind] += [ious[match], 1, 0, 0]
            missing.remove(match)
            continue
        crowds = sum(overlaps.get((a, number), 0) for a in alike if true[a]["iscrowd"])
        if area and unknown + crowds <= OUTSIDE * area:
            counts[kind] += [0, 0, 1, 0]
    for number in missing:
        counts[_class(true[number])] += [0, 0, 0, 1]
    return dict(counts)


class PanopticEvaluator(DatasetEvaluator):
    """Panoptic, segmentation and recognition quality: of all classes, of objects and of the rest.

    Args:
        name: of a registered split whose images have panoptic maps.
        read: returns the (H, W) ids of the segments in a file of a panoptic map.
    """

    def __init__(self, name: str, read: Callable[[str], NDArray[np.int64]]) -> None:
        self._read = read
        self._entries = {entry["image_id"]: entry for entry in DatasetCatalog.get(name)}
        self.reset()

    def reset(self) -> None:
        """Forget what was counted."""
        self._counts: list[Counts] = []

    def process(self, inputs: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Any]]) -> None:
        """Count a batch."""
        for given, output in zip(inputs, outputs, strict=True):
            entry = self._entries[given["image_id"]]
            found, segments = output["panoptic_seg"]
            truth = self._read(entry["pan_seg_file_name"])
            self._counts.append(compare(truth, entry["segments_info"], found.cpu().numpy(), segments))

    def evaluate(self) -> dict[str, dict[str, float]] | None:
        """Percentages; None in all but the first process."""
        gathered = comm.gather(self._counts)
        if not comm.is_main_process():
            return None
        total: Counts = defaultdict(lambda: np.zeros(4))
        for counts in itertools.chain.from_iterable(gathered):
            for kind, count in counts.items():
                total[kind] += count
        results: dict[str, float] = {}
        rows = []
        for told, suffix, kinds in (
            ("all", "", list(total)),
            ("things", "_th", [kind for kind in total if kind[0]]),
            ("stuff", "_st", [kind for kind in total if not kind[0]]),
        ):
            quality = (
                100 * np.mean([_quality(total[kind]) for kind in kinds], axis=0) if kinds else [np.nan] * 3
            )
            results |= {
                f"{key}{suffix}": float(q) for key, q in zip(("PQ", "SQ", "RQ"), quality, strict=True)
            }
            rows.append([told, *quality, len(kinds)])
        table = tabulate(rows, ["", "PQ", "SQ", "RQ", "classes"], tablefmt="pipe", floatfmt=".3f")
        logging.getLogger(__name__).info("Panoptic quality:\n%s", table)
        return {"panoptic_seg": results}


def _class(segment: Mapping[str, Any]) -> Class:
    return bool(segment["isthing"]), int(segment["category_id"])


def _overlaps(
    truth: NDArray[np.int64], found: NDArray[np.int64], known: set[int]
) -> dict[tuple[int, int], int]:
    """Numbers of a true and a found segment -> pixels that both have; NONE for true ones that are unknown."""
    width = int(found.max()) + 1
    overlaps: dict[tuple[int, int], int] = defaultdict(int)
    codes, pixels = np.unique(truth.astype(np.int64) * width + found, return_counts=True)
    for code, count in zip(codes.tolist(), pixels.tolist(), strict=True):
        number, other = divmod(code, width)
        overlaps[number if number in known else NONE, other] += count
    return overlaps


def _areas(overlaps: Mapping[tuple[int, int], int], side: int) -> dict[int, int]:
    areas: dict[int, int] = defaultdict(int)
    for pair, count in overlaps.items():
        areas[pair[side]] += count
    return areas


def _quality(counts: NDArray[np.float64]) -> tuple[float, float, float]:
    """Panoptic, segmentation and recognition quality of a class."""
    iou, hits, wrong, missed = counts
    whole = hits + wrong / 2 + missed / 2
    if not whole:
        return 0.0, 0.0, 0.0
    return iou / whole, iou / hits if hits else 0.0, hits / whole
