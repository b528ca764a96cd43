"""The images that a training uses, and how many objects of each class they have."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
from detectron2.utils.logger import log_first_n
from tabulate import tabulate

from .entries import Entries

__all__ = ["log_class_counts", "with_annotations"]

logger = logging.getLogger(__name__)

COLUMNS = 3  # classes in a row of the table


def with_annotations(entries: Entries, keypoints: bool = False) -> Entries:
    """The images with an object that is no crowd, and with a labelled keypoint if ``keypoints`` is set."""
    objects = entries.objects()
    usable = np.zeros(len(entries), bool)
    usable[objects.images[~objects.crowds]] = True
    if keypoints:
        usable &= np.bincount(objects.images, objects.visible, len(entries)) > 0
    kept = np.flatnonzero(usable)
    removed = len(entries) - len(kept)
    logger.info("Removed %d images without usable annotations; %d images are left.", removed, len(kept))
    return entries.select(kept)


def log_class_counts(entries: Entries, names: Sequence[str]) -> None:
    """Log the number of objects of each class, crowds aside; the same table once in a process."""
    objects = entries.objects()
    counts = np.bincount(objects.classes[~objects.crowds], minlength=len(names)).tolist()
    cells = [cell for pair in zip([*names, "all"], [*counts, sum(counts)], strict=True) for cell in pair]
    rows = [cells[start : start + 2 * COLUMNS] for start in range(0, len(cells), 2 * COLUMNS)]
    table = tabulate(rows, ["class", "objects"] * COLUMNS, tablefmt="pipe", disable_numparse=True)
    log_first_n(logging.INFO, f"Objects of each class:\n{table}", name=__name__, key="message")
