"""Detections of a made-up evaluation, from which intervals and verdicts are drawn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from d2timm.evaluation import matches
from d2timm.report.bootstrap import Matches


def write_matches(
    folder: Path,
    share: float,
    seed: int | Sequence[int],
    images: int,
    first_image: int = 0,
    without: int = 0,
) -> float:
    """Write the matches of a run that finds this share of the objects, one in each image.

    Args:
        folder: of the run.
        share: 0 to 1.
        seed: decides which objects are found, and the scores.
        images: their number.
        first_image: id of the first one.
        without: number of the first images that have no object.

    Returns:
        AP in percent.
    """
    draw = np.random.default_rng(seed)
    found = (draw.random(images) < share) & (np.arange(images) >= without)
    arrays = {
        "images": first_image + np.arange(images),
        "objects": (np.arange(images) >= without).astype(np.int32)[:, None],
        "score": draw.random(images),
        "image": np.arange(images, dtype=np.int32),
        "category": np.zeros(images, np.int32),
        "matched": np.tile(found, (10, 1)),
        "ignored": np.zeros((10, images), bool),
    }
    matches.write(arrays, folder / "inference" / matches.file_name("bbox"))
    return Matches(arrays).average_precision()
