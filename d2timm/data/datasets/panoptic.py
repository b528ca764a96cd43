"""Truth for pixels and segments, read from panoptic maps as COCO publishes them.

A map is a PNG whose colours are numbers of segments; its JSON says what they are. Semantic truth follows
from both when an image is read, so there are no files to prepare (Panoptic FPN,
https://arxiv.org/abs/1901.02446, and its scripts want them).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from detectron2.data import DatasetCatalog, detection_utils
from numpy.typing import NDArray

from ...errors import ConfigError
from ..paths import Split
from .base import IGNORED, THINGS

__all__ = ["add_segments", "read_segments", "read_semantic", "semantic_truth"]


def add_segments(
    dicts: list[dict[str, Any]], files: Split, things: Sequence[str], semantic: Sequence[str]
) -> None:
    """Put the panoptic maps of images and what their segments are into detectron2's dicts, in place.

    A segment's ``category_id`` is that of detectron2's panoptic results: the class of an object, or the
    semantic class of anything else. Its ``label`` is its pixels' semantic class.

    Args:
        dicts: of the images.
        files: of the split.
        things: names of the classes of objects.
        semantic: names of the classes of pixels; the first may stand for all objects.

    Raises:
        ConfigError: a file in another format or of another set, or an image without a map.
    """
    assert files.panoptic_json
    assert files.panoptic
    try:
        content = json.loads(files.panoptic_json.read_bytes())
        names = {category["id"]: category["name"] for category in content["categories"]}
        isthing = {category["id"]: bool(category["isthing"]) for category in content["categories"]}
        maps = {entry["image_id"]: entry for entry in content["annotations"]}
        labels = {
            number: 0 if semantic[0] == THINGS and isthing[number] else list(semantic).index(name)
            for number, name in names.items()
        }
        kinds = {n: list(things).index(names[n]) if isthing[n] else labels[n] for n in names}
        for entry in dicts:
            segments = maps.get(entry["image_id"])
            if segments is None:
                raise ConfigError(f"{files.panoptic_json}: image {entry['image_id']} has no panoptic map")
            entry["pan_seg_file_name"] = str(files.panoptic / segments["file_name"])
            entry["sem_seg_file_name"] = entry["pan_seg_file_name"]  # where detectron2 looks for pixels
            entry["segments_info"] = [
                {
                    "id": segment["id"],
                    "isthing": isthing[segment["category_id"]],
                    "iscrowd": segment.get("iscrowd", 0),
                    "label": labels[segment["category_id"]],
                    "category_id": kinds[segment["category_id"]],
                }
                for segment in segments["segments_info"]
            ]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"{files.panoptic_json} is not in COCO's panoptic format, or not of this set: {error!r}"
        ) from None


def read_segments(file_name: str) -> NDArray[np.int64]:
    """(H, W) numbers of segments in a panoptic map; 0 where there is no truth."""
    pixels = np.asarray(detection_utils.read_image(file_name, "RGB")).astype(np.int64)
    return np.asarray(pixels @ np.array([1, 256, 256**2]))


def read_semantic(entry: Mapping[str, Any]) -> NDArray[np.int64]:
    """(H, W) classes of the pixels of an image, ``IGNORED`` where there is no truth.

    Args:
        entry: of detectron2's dicts, with a panoptic map and its segments, or with a map of labels and
            ``sem_seg_classes``, the class of each label.
    """
    if "segments_info" not in entry:
        labels = np.asarray(detection_utils.read_image(entry["sem_seg_file_name"], "L"))[..., 0]
        return np.asarray(np.asarray(entry["sem_seg_classes"])[labels])
    numbers = read_segments(entry["pan_seg_file_name"])
    classes = np.full(numbers.shape, IGNORED)
    for segment in entry["segments_info"]:
        classes[numbers == segment["id"]] = segment["label"]
    return classes


def semantic_truth(name: str) -> Callable[..., NDArray[np.int64]]:
    """What gives the classes of pixels, by the ``sem_seg_file_name`` of an image of a registered split."""
    entries = {entry["sem_seg_file_name"]: entry for entry in DatasetCatalog.get(name)}

    def read(file_name: str, dtype: type = int) -> NDArray[np.int64]:
        return read_semantic(entries[file_name]).astype(dtype)

    return read
