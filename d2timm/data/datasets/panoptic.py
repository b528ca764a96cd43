"""Pixel classes and segments, read from panoptic maps as COCO publishes them.

A map is a PNG file whose colours encode segment ids; a JSON file gives the category of each segment. The
semantic ground truth is derived from both when an image is read, so that no files have to be prepared. (For
Panoptic FPN, https://arxiv.org/abs/1901.02446, detectron2 prepares them with a script.)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from detectron2.data import DatasetCatalog, detection_utils
from numpy.typing import NDArray

from ...errors import ConfigError
from ...utils.json_file import read_json
from ..paths import Split
from .base import IGNORED, THINGS

__all__ = ["add_segments", "read_segments", "read_semantic", "semantic_reader"]


def add_segments(
    dicts: list[dict[str, Any]], files: Split, things: Sequence[str], semantic: Sequence[str]
) -> None:
    """Add the panoptic maps and their segments to images in detectron2's format, in place.

    A segment's ``category_id`` follows detectron2's panoptic results: the object class of a thing, the pixel
    class of anything else. Its ``label`` is the class of its pixels.

    Args:
        dicts: the images.
        files: the files of their split.
        things: names of the object classes.
        semantic: names of the pixel classes; the first may stand for all objects.

    Raises:
        ConfigError: a file has another format or belongs to another dataset, or an image has no map.
    """
    assert files.panoptic_json
    assert files.panoptic
    try:
        content = read_json(files.panoptic_json)
        names = {category["id"]: category["name"] for category in content["categories"]}
        isthing = {category["id"]: bool(category["isthing"]) for category in content["categories"]}
        maps = {entry["image_id"]: entry for entry in content["annotations"]}
        labels = {
            number: 0 if semantic[0] == THINGS and isthing[number] else list(semantic).index(name)
            for number, name in names.items()
        }
        classes = {n: list(things).index(names[n]) if isthing[n] else labels[n] for n in names}
        for entry in dicts:
            panoptic_map = maps.get(entry["image_id"])
            if panoptic_map is None:
                raise ConfigError(f"{files.panoptic_json}: image {entry['image_id']} has no panoptic map")
            entry["pan_seg_file_name"] = str(files.panoptic / panoptic_map["file_name"])
            entry["sem_seg_file_name"] = entry["pan_seg_file_name"]  # the key of detectron2's evaluator
            entry["segments_info"] = [
                {
                    "id": segment["id"],
                    "isthing": isthing[segment["category_id"]],
                    "iscrowd": segment.get("iscrowd", 0),
                    "label": labels[segment["category_id"]],
                    "category_id": classes[segment["category_id"]],
                }
                for segment in panoptic_map["segments_info"]
            ]
    except ConfigError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"{files.panoptic_json} is not in COCO's panoptic format or belongs to another dataset: {error!r}"
        ) from None


def read_segments(file_name: str) -> NDArray[np.int64]:
    """(H, W) segment ids of a panoptic map; 0 where there are no annotations."""
    pixels = np.asarray(detection_utils.read_image(file_name, "RGB")).astype(np.int64)
    return np.asarray(pixels @ np.array([1, 256, 256**2]))


def read_semantic(entry: Mapping[str, Any]) -> NDArray[np.int64]:
    """(H, W) class indices of the pixels of an image; ``IGNORED`` where there are no annotations.

    Args:
        entry: an image in detectron2's format, with a panoptic map and its segments, or with a label map and
            ``sem_seg_classes``, the class of each label.
    """
    if "segments_info" not in entry:
        labels = np.asarray(detection_utils.read_image(entry["sem_seg_file_name"], "L"))[..., 0]
        return np.asarray(np.asarray(entry["sem_seg_classes"])[labels])
    ids = read_segments(entry["pan_seg_file_name"])
    classes = np.full(ids.shape, IGNORED)
    for segment in entry["segments_info"]:
        classes[ids == segment["id"]] = segment["label"]
    return classes


def semantic_reader(name: str) -> Callable[..., NDArray[np.int64]]:
    """A function that reads the pixel classes for a ``sem_seg_file_name`` of a registered split."""
    entries = {entry["sem_seg_file_name"]: entry for entry in DatasetCatalog.get(name)}

    def read(file_name: str, dtype: type = int) -> NDArray[np.int64]:
        return read_semantic(entries[file_name]).astype(dtype)

    return read
