"""The embedded dataset `shapes`, whose images are drawn at first use and written in COCO's formats.

It has annotations for every task: boxes, masks, keypoints, and a panoptic map of each image.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from ...errors import ConfigError
from ...utils.files import atomic_folder, cache_root
from ..paths import Split
from . import shapes
from .coco import CocoDataset
from .shapes import Shape

__all__ = ["ShapesDataset", "panoptic_map", "shapes_root", "write_shapes"]


class ShapesDataset(CocoDataset):
    """The embedded dataset."""

    name = "shapes"
    annotated_tasks = ("bbox", "segm", "keypoints", "sem_seg", "panoptic_seg")

    def files(self, split: str) -> Split:
        """The files of a split, which are written first if necessary."""
        root = shapes_root()
        annotations = root / "annotations"
        return Split(
            annotations / f"instances_{split}.json",
            root / split,
            annotations / f"panoptic_{split}.json",
            root / f"panoptic_{split}",
        )

    def classes(self) -> list[str]:
        """Names of the classes; does not draw the images."""
        return list(shapes.CLASSES)

    def stuff(self) -> list[str]:
        """Name of the pixel class of the background."""
        return [shapes.BACKGROUND]

    def keypoints(self) -> list[str]:
        """Names of the extreme points of a shape and its centre."""
        return list(shapes.KEYPOINTS)


def shapes_root() -> Path:
    """The folder of the dataset below `cache_root()`, which takes a few seconds to write if it is missing.

    Raises:
        ConfigError: the folder cannot be written.
    """
    cache = cache_root()
    root = cache / f"shapes-{_fingerprint()}"
    try:
        if not root.is_dir():
            cache.mkdir(parents=True, exist_ok=True)
            with atomic_folder(root) as partial:
                write_shapes(partial)
    except OSError as error:
        raise ConfigError(
            f"the dataset shapes cannot be written to {cache} ({error.strerror or error}):"
            " set D2TIMM_CACHE to a folder that can be written"
        ) from error
    return root


def write_shapes(root: Path) -> None:
    """Write images, COCO annotations and panoptic maps of all splits to the folder `root`."""
    (root / "annotations").mkdir(parents=True)
    things = [{"id": i, "name": name} for i, name in enumerate(shapes.CLASSES, start=1)]
    categories = [{**thing, "keypoints": shapes.KEYPOINTS, "skeleton": []} for thing in things]
    panoptic_categories = [{**thing, "isthing": 1} for thing in things]
    panoptic_categories.append({"id": len(things) + 1, "name": shapes.BACKGROUND, "isthing": 0})
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
            maps.append(_panoptic_annotation(segments, drawn, image_id, name))
        files = {
            f"instances_{split}": {"annotations": annotations, "categories": categories},
            f"panoptic_{split}": {"annotations": maps, "categories": panoptic_categories},
        }
        for file, content in files.items():
            (root / "annotations" / f"{file}.json").write_text(json.dumps({"images": images, **content}))


def panoptic_map(drawn: Sequence[Shape]) -> NDArray[np.uint8]:
    """(SIZE, SIZE, 3) panoptic map in COCO's format; red is 1 in the background, 2 in the first shape, ..."""
    segments = np.zeros((shapes.SIZE, shapes.SIZE, 3), np.uint8)
    segments[..., 0] = 1
    for segment_id, shape in enumerate(drawn, start=2):
        rles = coco_mask.frPyObjects([list(polygon) for polygon in shape.polygons], shapes.SIZE, shapes.SIZE)
        segments[coco_mask.decode(coco_mask.merge(rles)) == 1, 0] = segment_id
    return segments


def _annotation(shape: Shape, annotation_id: int, image_id: int) -> dict[str, Any]:
    return {
        "id": annotation_id,
        "image_id": image_id,
        "category_id": shapes.CLASSES.index(shape.category) + 1,
        "bbox": shape.bbox,
        "area": shape.area,
        "segmentation": shape.polygons,
        "keypoints": [value for point in shape.keypoints for value in point],
        "num_keypoints": len(shape.keypoints),
        "iscrowd": 0,
    }


def _panoptic_annotation(
    segments: NDArray[np.uint8], drawn: Sequence[Shape], image_id: int, name: str
) -> dict[str, Any]:
    """The entry of an image in COCO's panoptic JSON."""
    category_ids = [len(shapes.CLASSES) + 1, *(shapes.CLASSES.index(shape.category) + 1 for shape in drawn)]
    areas = np.bincount(segments[..., 0].ravel(), minlength=len(category_ids) + 1)[1:].tolist()
    infos = [
        {"id": segment_id, "category_id": category_id, "area": area, "iscrowd": 0}
        for segment_id, (category_id, area) in enumerate(zip(category_ids, areas, strict=True), start=1)
    ]
    return {"image_id": image_id, "file_name": name, "segments_info": infos}


def _write_png(file: Path, pixels: NDArray[np.uint8]) -> None:
    # not cv2.imwrite, which does not report a full disk
    file.write_bytes(cv2.imencode(".png", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))[1].tobytes())


def _fingerprint() -> str:
    """A hash of all constants of the drawing, which identifies the content."""
    constants = sorted((name, value) for name, value in vars(shapes).items() if name.isupper())
    return hashlib.sha256(repr(constants).encode()).hexdigest()[:12]
