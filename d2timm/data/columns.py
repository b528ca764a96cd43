"""Annotations in COCO's format as columns: arrays in a file of the cache, which processes map into memory.

A dataset of COCO's size has 40 million numbers. As Python objects they take gigabytes and a minute to read;
as arrays they take a fourth of the JSON file, which all processes share, and no time. The dict of an image in
detectron2's format is made when it is asked for.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
from detectron2.structures import BoxMode
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from ..utils.arrays import Array, map_arrays, smallest
from ..utils.packing import DecimalPacker, Decimals, Texts, pack_texts

__all__ = ["Columns", "ColumnsPacker", "Object"]

Entry: TypeAlias = dict[str, Any]

#: Bits of an object: which keys it has
CROWD_KEY, KEYPOINTS, POLYGONS, RUNS, RUNS_AS_BYTES = 1, 2, 4, 8, 16


class Object(Protocol):
    """An annotation of a COCO file.

    Attributes:
        bbox: (left, top, width, height) in pixels.
        iscrowd: 0 or 1; None if it has no such key.
        segmentation: polygons or run lengths; None or empty if it has none.
        keypoints: x, y and visibility of each; None if it has no such key.
    """

    bbox: list[float]
    iscrowd: int | None
    segmentation: Any
    keypoints: list[float] | None


class ColumnsPacker:
    """Collects images with their objects, in the order of the dataset."""

    def __init__(self) -> None:
        self._images: list[tuple[int, int, int]] = []
        self._names: list[str] = []
        self._firsts, self._polygon_firsts, self._corner_ends, self._keypoint_ends = (
            array("q", [0]) for _ in range(4)
        )
        self._classes, self._crowds, self._keys, self._visible = (array("q") for _ in range(4))
        self._run_objects: list[int] = []
        self._run_sizes: list[Sequence[int]] = []
        self._runs: list[str | bytes] = []
        self._boxes, self._corners, self._keypoints = map(DecimalPacker, ("boxes", "corners", "keypoints"))

    def add_image(self, image_id: int, file_name: str, height: int, width: int) -> None:
        """Start an image, to which the objects that follow belong."""
        self._images.append((image_id, height, width))
        self._names.append(file_name)
        self._firsts.append(self._firsts[-1])

    def add_object(self, thing: Object, class_index: int) -> None:
        """Add an object, unless none of its polygons is valid: detectron2 leaves it out as well.

        Raises:
            ValueError: its box or its mask is of another format.
        """
        keys = 0 if thing.iscrowd is None else CROWD_KEY
        mask = thing.segmentation
        if isinstance(mask, dict) and mask:
            keys |= self._add_runs(mask)
        elif mask:
            polygons = [polygon for polygon in mask if len(polygon) % 2 == 0 and len(polygon) >= 6]
            if not polygons:
                return
            keys |= POLYGONS
            for polygon in polygons:
                self._corners.extend(polygon)
                self._corner_ends.append(self._corners.count)
        self._polygon_firsts.append(len(self._corner_ends) - 1)
        if len(thing.bbox) != 4:
            raise ValueError(f"bbox={list(thing.bbox)} of image {self._images[-1][0]} has not 4 numbers")
        self._boxes.extend(thing.bbox)
        if (points := thing.keypoints) is not None:
            keys |= KEYPOINTS
            self._keypoints.extend(points)
        self._keypoint_ends.append(self._keypoints.count)
        self._visible.append(sum(value > 0 for value in points[2::3]) if points else 0)
        self._keys.append(keys)
        self._crowds.append(thing.iscrowd or 0)
        self._classes.append(class_index)
        self._firsts[-1] += 1

    def _add_runs(self, mask: Mapping[str, Any]) -> int:
        """Add run lengths, compressed; pycocotools' compression gives bytes, that of files is text."""
        compressed = coco_mask.frPyObjects(mask, *mask["size"]) if isinstance(mask["counts"], list) else mask
        counts = compressed["counts"]
        self._run_objects.append(len(self._keys))
        self._run_sizes.append(compressed["size"])
        self._runs.append(counts)
        return RUNS | isinstance(counts, bytes) * RUNS_AS_BYTES

    def arrays(self) -> dict[str, Array]:
        """All columns."""
        images = np.array(self._images, np.int64).reshape(-1, 3)
        columns = {
            "image_ids": images[:, 0],
            "heights": images[:, 1],
            "widths": images[:, 2],
            "firsts": self._firsts,
            "classes": self._classes,
            "crowds": self._crowds,
            "keys": self._keys,
            "visible": self._visible,
            "polygon_firsts": self._polygon_firsts,
            "corner_ends": self._corner_ends,
            "keypoint_ends": self._keypoint_ends,
            "run_objects": self._run_objects,
            "run_sizes": np.array(self._run_sizes, np.int64).reshape(-1, 2),
        }
        packers = (self._boxes, self._corners, self._keypoints)
        return {
            **{name: smallest(np.asarray(values, np.int64)) for name, values in columns.items()},
            **{name: numbers for packer in packers for name, numbers in packer.arrays().items()},
            **pack_texts("names", self._names),
            **pack_texts("runs", self._runs),
        }


class Columns:
    """The columns of a dataset.

    Args:
        file: that has the arrays of a ``ColumnsPacker``, and ``categories`` as JSON.

    Raises:
        OSError: there is no such file, or it cannot be read.
        ValueError, LookupError: it is damaged.

    Attributes:
        categories: of the COCO file, in the order of the class indices.
        image_ids: (N) id of each image.
        heights: (N) of the images, in pixels.
        widths: (N) of the images, in pixels.
        names: file names of the images, as the COCO file gives them.
        firsts: (N + 1) number of the first object of each image; the objects of image i are ``firsts[i]`` to
            ``firsts[i + 1] - 1``.
        classes: (M) class index of each object.
        crowds: (M) whether an object is a crowd.
        visible: (M) number of labelled keypoints of each object.
    """

    def __init__(self, file: Path) -> None:
        arrays, metadata = map_arrays(file)
        self.categories: list[dict[str, Any]] = json.loads(metadata["categories"])
        self.image_ids, self.heights, self.widths = (arrays[n] for n in ("image_ids", "heights", "widths"))
        self.firsts, self.classes, self.visible = (arrays[n] for n in ("firsts", "classes", "visible"))
        self.crowds: NDArray[np.bool_] = arrays["crowds"] != 0
        self.names = Texts(arrays, "names")
        self._file, self._arrays = file, arrays
        self._keys = arrays["keys"]
        self._boxes, self._corners, self._keypoints = (
            Decimals(arrays, name) for name in ("boxes", "corners", "keypoints")
        )
        self._runs = Texts(arrays, "runs")

    def __reduce__(self) -> tuple[Any, ...]:
        return Columns, (self._file,)  # another process maps the file as well

    def __len__(self) -> int:
        return len(self.image_ids)

    @property
    def boxes(self) -> NDArray[np.float64]:
        """(M, 4) left, top, width and height of each object."""
        return self._boxes[:].reshape(-1, 4)

    @property
    def has_mask(self) -> NDArray[np.bool_]:
        """(M) whether an object has a mask."""
        masked: NDArray[np.bool_] = self._keys & (POLYGONS | RUNS) != 0
        return masked

    @property
    def images_of_objects(self) -> NDArray[np.int64]:
        """(M) index of the image of each object."""
        firsts = self.firsts.astype(np.int64)
        return np.repeat(np.arange(len(self)), firsts[1:] - firsts[:-1])

    def image(self, index: int) -> Entry:
        """An image without its objects, in detectron2's format but for the folder of its file."""
        return {
            "file_name": self.names[index],
            "height": int(self.heights[index]),
            "width": int(self.widths[index]),
            "image_id": int(self.image_ids[index]),
        }

    def objects(self, index: int) -> list[Entry]:
        """The objects of an image, in detectron2's format."""
        return [self._object(number) for number in range(self.firsts[index], self.firsts[index + 1])]

    def _object(self, number: int) -> Entry:
        keys = int(self._keys[number])
        thing: Entry = {}
        if keys & CROWD_KEY:
            thing["iscrowd"] = int(self._arrays["crowds"][number])
        thing["bbox"] = self._boxes[4 * number : 4 * number + 4].tolist()
        if keys & KEYPOINTS:
            thing["keypoints"] = self._keypoints_of(number)
        thing["category_id"] = int(self.classes[number])
        if keys & POLYGONS:
            thing["segmentation"] = self._polygons(number)
        elif keys & RUNS:
            thing["segmentation"] = self._run_lengths(number, bool(keys & RUNS_AS_BYTES))
        thing["bbox_mode"] = BoxMode.XYWH_ABS
        return thing

    def _keypoints_of(self, number: int) -> list[float]:
        """The keypoints, at the centres of their pixels, where detectron2 expects them."""
        ends = self._arrays["keypoint_ends"]
        points = self._keypoints[ends[number] : ends[number + 1]]
        points[np.arange(len(points)) % 3 != 2] += 0.5
        coordinates: list[float] = points.tolist()
        return coordinates

    def _polygons(self, number: int) -> list[list[float]]:
        firsts, ends = self._arrays["polygon_firsts"], self._arrays["corner_ends"]
        places = ends[firsts[number] : firsts[number + 1] + 1].tolist()
        corners = self._corners[places[0] : places[-1]].tolist()
        return [corners[start - places[0] : end - places[0]] for start, end in pairwise(places)]

    def _run_lengths(self, number: int, as_bytes: bool) -> Entry:
        place = int(np.searchsorted(self._arrays["run_objects"], number))
        counts = self._runs.encoded(place)
        size = self._arrays["run_sizes"][place].tolist()
        return {"size": size, "counts": counts if as_bytes else counts.decode()}
