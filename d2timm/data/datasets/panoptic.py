"""Pixel classes and segments, read from panoptic maps as COCO publishes them.

A map is a PNG file whose colours encode segment ids; a JSON file gives the category of each segment. The
semantic ground truth is derived from both when an image is read, so that no files have to be prepared. (For
Panoptic FPN, https://arxiv.org/abs/1901.02446, detectron2 prepares them with a script.)
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from detectron2.data import DatasetCatalog, detection_utils
from numpy.typing import NDArray

from ...errors import ConfigError
from ...utils.arrays import map_arrays, smallest
from ...utils.json_file import read_json
from ...utils.packing import Texts, pack_texts
from ..array_cache import Content, cached_arrays
from ..paths import Split
from .base import IGNORED, THINGS

__all__ = ["PanopticSegments", "read_segments", "read_semantic", "semantic_reader"]

VERSION = 1  # increase it when the same file is read differently, or its arrays are stored differently


class _Segment(msgspec.Struct, gc=False):
    id: int
    category_id: int
    iscrowd: int | bool = 0


class _Map(msgspec.Struct):
    image_id: int
    file_name: str
    segments_info: list[_Segment]


class _Category(msgspec.Struct):
    id: int
    name: str
    isthing: int | bool


class _Content(msgspec.Struct):
    annotations: list[_Map]
    categories: list[_Category]


class PanopticSegments:
    """The panoptic maps of a split and their segments, as ``ColumnEntries`` adds them to its images.

    A segment's ``category_id`` follows detectron2's panoptic results: the object class of a thing, the pixel
    class of anything else. Its ``label`` is the class of its pixels.

    Args:
        files: the files of the split.
        things: names of the object classes.
        semantic: names of the pixel classes; the first may stand for all objects.

    Raises:
        ConfigError: a file has another format or belongs to another dataset.
    """

    def __init__(self, files: Split, things: Sequence[str], semantic: Sequence[str]) -> None:
        assert files.panoptic_json
        assert files.panoptic
        self._arguments = files, things, semantic
        file = self._file = files.panoptic_json
        self._folder = files.panoptic
        try:
            self._arrays, metadata = map_arrays(
                cached_arrays(file, f"panoptic {VERSION}", lambda: _read(file))
            )
            self._categories = [
                _keys_of(category, things, semantic) for category in json.loads(metadata["categories"])
            ]
        except (LookupError, ValueError) as error:
            raise ConfigError(
                f"{file} is not in COCO's panoptic format or belongs to another dataset: {error!r}"
            ) from None
        self._names = Texts(self._arrays, "names")

    def __reduce__(self) -> tuple[Any, ...]:
        return PanopticSegments, self._arguments  # another process maps the file as well

    def check(self, image_ids: NDArray[Any]) -> None:
        """Raise ConfigError if one of the images has no panoptic map."""
        if missing := set(image_ids.tolist()).difference(self._arrays["image_ids"].tolist()):
            raise ConfigError(f"{self._file}: image {min(missing)} has no panoptic map")

    def of(self, image_id: int) -> dict[str, Any]:
        """The panoptic map of an image and its segments, for its dict."""
        place = int(np.searchsorted(self._arrays["image_ids"], image_id))
        firsts = self._arrays["firsts"]
        ids, categories, crowds = (
            self._arrays[name][firsts[place] : firsts[place + 1]].tolist()
            for name in ("ids", "categories", "crowds")
        )
        segments = [
            {"id": number, "iscrowd": crowd, **self._categories[category]}
            for number, category, crowd in zip(ids, categories, crowds, strict=True)
        ]
        map_file = str(self._folder / self._names[place])
        # sem_seg_file_name is the key of detectron2's evaluator
        return {"pan_seg_file_name": map_file, "sem_seg_file_name": map_file, "segments_info": segments}


def _keys_of(category: Mapping[str, Any], things: Sequence[str], semantic: Sequence[str]) -> dict[str, Any]:
    """What the segments of a category have in common."""
    name, isthing = category["name"], bool(category["isthing"])
    label = 0 if semantic[0] == THINGS and isthing else list(semantic).index(name)
    return {"isthing": isthing, "label": label, "category_id": list(things).index(name) if isthing else label}


def _read(file: Path) -> Content:
    """The maps of a file in the order of their images; the names of ``_arrays`` above."""
    content = msgspec.convert(read_json(file), _Content)
    places = {category.id: place for place, category in enumerate(content.categories)}
    maps = sorted({entry.image_id: entry for entry in content.annotations}.items())
    segments = [segment for _, entry in maps for segment in entry.segments_info]
    arrays = {
        "image_ids": [image_id for image_id, _ in maps],
        "firsts": np.cumsum([0, *(len(entry.segments_info) for _, entry in maps)]),
        "ids": [segment.id for segment in segments],
        "categories": [places[segment.category_id] for segment in segments],
        "crowds": [segment.iscrowd for segment in segments],
    }
    packed = {name: smallest(np.asarray(values, np.int64)) for name, values in arrays.items()}
    names = pack_texts("names", [entry.file_name for _, entry in maps])
    return {**packed, **names}, {"categories": json.dumps(msgspec.to_builtins(content.categories))}


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
    entries = DatasetCatalog.get(name)
    places = {entry["sem_seg_file_name"]: place for place, entry in enumerate(entries)}

    def read(file_name: str, dtype: type = int) -> NDArray[np.int64]:
        return read_semantic(entries[places[file_name]]).astype(dtype)

    return read
