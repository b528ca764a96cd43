"""The images of a dataset in detectron2's format, as a sequence that need not hold all of them in memory."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, overload

import numpy as np
from detectron2.data import DatasetFromList
from numpy.typing import NDArray

from ..utils.arrays import Array
from .columns import Columns

__all__ = ["ColumnEntries", "Entries", "Entry", "ListEntries", "Objects", "Segments", "as_entries"]

Entry: TypeAlias = dict[str, Any]


@dataclass(frozen=True)
class Objects:
    """What is known of all objects without making their dicts.

    Attributes:
        images: (M) place of the image of each object, ascending.
        classes: (M) class index.
        crowds: (M) whether the object is a crowd.
        visible: (M) number of labelled keypoints.
    """

    images: NDArray[np.int64]
    classes: Array
    crowds: NDArray[np.bool_]
    visible: Array


class Entries(Sequence[Entry]):
    """Images and annotations in detectron2's format.

    Attributes:
        heights: (N) of the images, in pixels.
        widths: (N) of the images, in pixels.
        has_objects: whether the images have annotations of objects.
    """

    heights: Array
    widths: Array
    has_objects: bool

    @abstractmethod
    def objects(self) -> Objects:
        """The objects of all images; ``has_objects`` is true."""

    @abstractmethod
    def select(self, places: Array) -> Entries:
        """The images at these places."""

    @abstractmethod
    def entry(self, place: int) -> Entry:
        """The image at a place from 0, a dict that belongs to the caller."""

    def __len__(self) -> int:
        return len(self.heights)

    @overload
    def __getitem__(self, place: int) -> Entry: ...
    @overload
    def __getitem__(self, place: slice) -> Entries: ...
    def __getitem__(self, place: int | slice) -> Entry | Entries:
        if isinstance(place, slice):
            return self.select(np.arange(len(self))[place])
        if not -len(self) <= place < len(self):
            raise IndexError(f"image {place} of {len(self)}")
        return self.entry(int(place) % len(self))


class ListEntries(Entries):
    """The images of a list, serialized, so that worker processes share their memory.

    Args:
        dicts: the images.
    """

    def __init__(self, dicts: Sequence[Entry]) -> None:
        self._serialized = DatasetFromList(dicts, copy=False)
        self._places = np.arange(len(dicts))
        self.heights, self.widths = (
            np.array([entry.get(side, 0) for entry in dicts]) for side in ("height", "width")
        )
        self.has_objects = all("annotations" in entry for entry in dicts)

    def objects(self) -> Objects:
        """The objects of all images."""
        rows = [
            (
                place,
                thing["category_id"],
                thing.get("iscrowd", 0) != 0,
                sum(value > 0 for value in (thing.get("keypoints") or ())[2::3]),
            )
            for place, entry in enumerate(self)
            for thing in entry["annotations"]
        ]
        images, classes, crowds, visible = np.array(rows, np.int64).reshape(-1, 4).T
        return Objects(images, classes, crowds != 0, visible)

    def select(self, places: Array) -> ListEntries:
        """The images at these places."""
        selected = ListEntries.__new__(ListEntries)
        selected._serialized, selected._places = self._serialized, self._places[places]
        selected.heights, selected.widths = self.heights[places], self.widths[places]
        selected.has_objects = self.has_objects
        return selected

    def entry(self, place: int) -> Entry:
        """The image at a place."""
        entry: Entry = self._serialized[self._places[place]]
        return entry


class Segments(Protocol):
    """What images have beside objects, such as panoptic segments."""

    def of(self, image_id: int) -> Mapping[str, Any]:
        """Further keys of the dict of an image."""


class ColumnEntries(Entries):
    """The images of a COCO file, whose dicts are made when they are asked for.

    Args:
        columns: of the file.
        folder: that file names are relative to.
        has_objects: whether the images have annotations of objects.
        segments: what the images have beside them; None: nothing.
        places: of the images in the columns; None: all.
    """

    def __init__(
        self,
        columns: Columns,
        folder: str,
        has_objects: bool = True,
        segments: Segments | None = None,
        places: Array | None = None,
    ) -> None:
        self.columns, self.folder, self.has_objects, self.segments = columns, folder, has_objects, segments
        self._places: Array = np.arange(len(columns)) if places is None else places
        self.heights, self.widths = columns.heights[self._places], columns.widths[self._places]

    def objects(self) -> Objects:
        """The objects of all images."""
        columns = self.columns
        firsts = columns.firsts.astype(np.int64)
        counts = np.diff(firsts)[self._places]
        ends = np.cumsum(counts)
        numbers = np.arange(counts.sum()) + np.repeat(firsts[:-1][self._places] - ends + counts, counts)
        return Objects(
            np.repeat(np.arange(len(self)), counts),
            columns.classes[numbers],
            columns.crowds[numbers],
            columns.visible[numbers],
        )

    def select(self, places: Array) -> ColumnEntries:
        """The images at these places."""
        return ColumnEntries(self.columns, self.folder, self.has_objects, self.segments, self._places[places])

    def entry(self, place: int) -> Entry:
        """The image at a place."""
        index = int(self._places[place])
        entry = self.columns.image(index)
        entry["file_name"] = os.path.join(self.folder, entry["file_name"])
        if self.has_objects:
            entry["annotations"] = self.columns.objects(index)
        if self.segments is not None:
            entry.update(self.segments.of(entry["image_id"]))
        return entry


def as_entries(dataset: Iterable[Entry]) -> Entries:
    """Any images in detectron2's format as ``Entries``."""
    return dataset if isinstance(dataset, Entries) else ListEntries(list(dataset))
