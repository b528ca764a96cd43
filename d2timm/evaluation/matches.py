"""Which detections match an object, kept in a file from which AP is computed for any choice of images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..utils.files import atomic_write

__all__ = ["MOST_PLACES", "collect", "file_name", "write"]

#: Images times classes up to which matches are collected, which takes a second for so many; metrics of larger
#: sets vary less with their images
MOST_PLACES = 20_000


def file_name(task: str) -> str:
    """The name of the file of a task in the folder of an evaluation."""
    return f"matches-{task}.npz"


def collect(evaluation: Any) -> dict[str, NDArray[Any]] | None:
    """The matches of an evaluation, over objects of all sizes.

    Args:
        evaluation: the result of ``matching.match``.

    Returns:
        ``images`` (I,), ids; ``objects`` (I, K), the number of objects that count; for each of D detections
        ``score``, ``image`` and ``category``, indices; and for T thresholds of IoU ``matched`` and
        ``ignored`` (T, D). None if there are too many images and classes.
    """
    params = evaluation.params
    images, categories = [*params.imgIds], [*params.catIds]
    if len(images) * len(categories) > MOST_PLACES:
        return None
    row = {number: index for index, number in enumerate(images)}
    column = {number: index for index, number in enumerate(categories)}
    objects = np.zeros((len(images), len(categories)), np.int32)
    parts: dict[str, list[NDArray[Any]]] = {name: [] for name in ("score", "image", "category")}
    matched, ignored = [], []
    for entry in _entries(evaluation):
        image, category = row[entry["image_id"]], column[entry["category_id"]]
        objects[image, category] = np.size(entry["gtIgnore"]) - np.count_nonzero(entry["gtIgnore"])
        number = len(entry["dtScores"])
        if number:
            parts["score"].append(np.asarray(entry["dtScores"]))
            parts["image"].append(np.full(number, image, np.int32))
            parts["category"].append(np.full(number, category, np.int32))
            matched.append(np.asarray(entry.get("dtMatched", np.asarray(entry["dtMatches"]) > 0), bool))
            ignored.append(np.asarray(entry["dtIgnore"], bool))
    thresholds = len(params.iouThrs)
    empty: dict[str, NDArray[Any]] = {
        "score": np.zeros(0),
        "image": np.zeros(0, np.int32),
        "category": np.zeros(0, np.int32),
    }
    return {
        "images": np.asarray(images),
        "objects": objects,
        **{name: np.concatenate(values) if values else empty[name] for name, values in parts.items()},
        "matched": np.concatenate(matched, 1) if matched else np.zeros((thresholds, 0), bool),
        "ignored": np.concatenate(ignored, 1) if ignored else np.zeros((thresholds, 0), bool),
    }


def write(matches: Mapping[str, NDArray[Any]], file: Path) -> None:
    """Write matches to a compressed file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(file) as partial, partial.open("wb") as opened:
        np.savez_compressed(opened, allow_pickle=False, **matches)


def _entries(evaluation: Any) -> list[Mapping[str, Any]]:
    """The results of each image and class for objects of all sizes, the best detections that count."""
    entries = getattr(evaluation, "eval_imgs", None) or evaluation.evalImgs
    sizes = [*evaluation.params.areaRng[0]]
    return [entry for entry in entries if entry is not None and [*entry["aRng"]] == sizes]
