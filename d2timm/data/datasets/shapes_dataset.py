"""The files of the embedded data set `shapes`, in the formats that COCO publishes.

It has truth for every kind of detector: boxes, masks, keypoints, and a panoptic map of each picture.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from ...errors import ConfigError
from ...utils.files import cache_root
from ..datasets import shapes
from .shapes import Shape

__all__ = ["panoptic_map", "shapes_root", "write_shapes"]


def write_shapes(root: Path) -> None:
    """Writes pictures, COCO annotations and panoptic maps of all splits into the folder `root`."""
    (root / "annotations").mkdir(parents=True)
    things = [{"id": i, "name": name} for i, name in enumerate(shapes.CLASSES, start=1)]
    categories = [{**thing, "keypoints": shapes.KEYPOINTS, "skeleton": []} for thing in things]
    kinds = [{**thing, "isthing": 1} for thing in things]
    kinds.append({"id": len(kinds) + 1, "name": shapes.BACKGROUND, "isthing": 0})
    for split, count in shapes.COUNTS.items():
        (root / split).mkdir()
        (root / f"panoptic_{split}").mkdir()
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        maps: list[dict[str, Any]] = []
        for image_id in range(1, count + 1):
            pixels, drawn = shapes.draw_image(split, image_id - 1)
            name = f"{image_id:06}.png"
            _write_png(root / split / name, pixels)
            images.append({"id": image_id, "file_name": name, "width": shapes.SIZE, "height": shapes.SIZE})
            for shape in drawn:
                annotations.append(_annotation(shape, len(annotations) + 1, image_id))
            segments = panoptic_map(drawn)
            _write_png(root / f"panoptic_{split}" / name, segments)
            maps.append(_segments(segments, drawn, image_id, name))
        files = {
            f"instances_{split}": {"annotations": annotations, "categories": categories},
            f"panoptic_{split}": {"annotations": maps, "categories": kinds},
        }
        for file, content in files.items():
            (root / "annotations" / f"{file}.json").write_text(json.dumps({"images": images, **content}))


def panoptic_map(drawn: Sequence[Shape]) -> NDArray[np.uint8]:
    """(SIZE, SIZE, 3) as COCO's panoptic maps: red is 1 for the background, 2 for the first shape, ..."""
    segments = np.zeros((shapes.SIZE, shapes.SIZE, 3), np.uint8)
    segments[..., 0] = 1
    for number, shape in enumerate(drawn, start=2):
        rles = coco_mask.frPyObjects([list(polygon) for polygon in shape.polygons], shapes.SIZE, shapes.SIZE)
        segments[coco_mask.decode(coco_mask.merge(rles)) == 1, 0] = number
    return segments


def _annotation(shape: Shape, number: int, image_id: int) -> dict[str, Any]:
    return {
        "id": number,
        "image_id": image_id,
        "category_id": shapes.CLASSES.index(shape.category) + 1,
        "bbox": shape.bbox,
        "area": shape.area,
        "segmentation": shape.polygons,
        "keypoints": [value for point in shape.keypoints for value in point],
        "num_keypoints": len(shape.keypoints),
        "iscrowd": 0,
    }


def _segments(
    segments: NDArray[np.uint8], drawn: Sequence[Shape], image_id: int, name: str
) -> dict[str, Any]:
    """What COCO's panoptic format says of a picture's segments."""
    kinds = [len(shapes.CLASSES) + 1, *(shapes.CLASSES.index(shape.category) + 1 for shape in drawn)]
    areas = np.bincount(segments[..., 0].ravel(), minlength=len(kinds) + 1)[1:].tolist()
    info = [
        {"id": number, "category_id": kind, "area": area, "iscrowd": 0}
        for number, (kind, area) in enumerate(zip(kinds, areas, strict=True), start=1)
    ]
    return {"image_id": image_id, "file_name": name, "segments_info": info}


def _write_png(file: Path, pixels: NDArray[np.uint8]) -> None:
    # not cv2.imwrite, which says nothing when the disk is full
    file.write_bytes(cv2.imencode(".png", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))[1].tobytes())


def shapes_root() -> Path:
    """Gives the folder of the data set, made in a few seconds when it is missing.

    It lies under `cache_root()`.

    Raises:
        ConfigError: The folder cannot be written.
    """
    cache = cache_root()
    root = cache / f"shapes-{_fingerprint()}"
    try:
        if not root.is_dir():
            cache.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".shapes-", dir=cache) as temporary:
                fresh = Path(temporary, "set")  # the temporary folder itself is closed to others
                write_shapes(fresh)
                try:
                    fresh.rename(root)
                except OSError:
                    if not root.is_dir():  # else another process was first: its set is as good
                        raise
    except OSError as error:
        raise ConfigError(
            f"the data set shapes cannot be written to {cache} ({error.strerror or error}):"
            " set D2TIMM_CACHE to a folder that can be written"
        ) from error
    return root


def _fingerprint() -> str:
    """A name for the content, other for any other value of a constant of the drawing."""
    constants = sorted((name, value) for name, value in vars(shapes).items() if name.isupper())
    return hashlib.sha256(repr(constants).encode()).hexdigest()[:12]
