"""Transform the annotations of all objects in an image at once, with the results of detectron2."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from detectron2.data import detection_utils
from detectron2.data import transforms as T
from detectron2.structures import BoxMode
from fvcore.transforms.transform import Transform
from numpy.typing import NDArray

__all__ = ["transform_objects"]

Array: TypeAlias = NDArray[Any]
Annotation: TypeAlias = dict[str, Any]


def transform_objects(
    annotations: Sequence[Mapping[str, Any]],
    transforms: T.TransformList,
    size: tuple[int, int],
    flip_indices: Array | None,
) -> list[Annotation]:
    """Transform the annotations of objects as ``detection_utils.transform_instance_annotations`` does one.

    That takes most of the time of a mapper for an image with many objects.

    Args:
        annotations: in detectron2's format; they are not changed.
        transforms: those of the image.
        size: (height, width) in pixels of the image after them.
        flip_indices: places of the keypoints in a mirrored image; None: there are no keypoints.
    """
    corners = [_corners(annotation) for annotation in annotations]
    plain = [
        i
        for i, annotation in enumerate(annotations)
        if corners[i] is not None and isinstance(annotation.get("segmentation", []), list)
    ]
    boxes = _transform_boxes([corners[i] for i in plain], transforms, size)
    masks = _transform_polygons([annotations[i].get("segmentation", []) for i in plain], transforms)
    done = dict(zip(plain, zip(boxes, masks, strict=True), strict=True))
    transformed = []
    for i, annotation in enumerate(annotations):
        new = dict(annotation)
        if i not in done:  # run lengths, rotated boxes
            options = {"keypoint_hflip_indices": flip_indices}
            new = detection_utils.transform_instance_annotations(new, transforms, size, **options)
        else:
            new["bbox"], polygons = done[i]
            new["bbox_mode"] = BoxMode.XYXY_ABS
            if "segmentation" in annotation:
                new["segmentation"] = polygons
            if "keypoints" in annotation:
                new["keypoints"] = detection_utils.transform_keypoint_annotations(
                    annotation["keypoints"], transforms, size, flip_indices
                )
        transformed.append(new)
    return transformed


def _corners(annotation: Mapping[str, Any]) -> Array | None:
    """x0, y0, x1, y1 of a box, as ``BoxMode.convert`` computes them; None for other kinds of boxes."""
    box, mode = annotation["bbox"], annotation["bbox_mode"]
    if not isinstance(box, list | tuple) or len(box) != 4:
        return None
    array = np.array(box)
    if array.dtype not in (np.float64, np.int64) or mode not in (BoxMode.XYXY_ABS, BoxMode.XYWH_ABS):
        return None
    if mode == BoxMode.XYXY_ABS:
        return array
    exact = array.astype(np.float32) if array.dtype == np.float64 else array  # it is a tensor of floats there
    exact[2:] += exact[:2]
    return exact.astype(array.dtype)


def _transform_boxes(
    corners: Sequence[Any], transforms: T.TransformList, size: tuple[int, int]
) -> list[Array]:
    height, width = size

    def transform(boxes: Array) -> Array:
        inside: Array = np.minimum(transforms.apply_box(boxes).clip(min=0), [width, height, width, height])
        return inside

    return [box[0] for box in _together([box[None] for box in corners], transform)]


def _transform_polygons(masks: Sequence[Any], transforms: T.TransformList) -> list[list[Array]]:
    """The polygons of each object, x0, y0, x1, ..."""
    points = [[np.array(polygon).reshape(-1, 2) for polygon in mask] for mask in masks]
    if any(type(t).apply_polygons is not Transform.apply_polygons for t in transforms.transforms):
        moved = [transforms.apply_polygons(polygons) for polygons in points]  # a crop cuts each
    else:
        flat = iter(_together([polygon for mask in points for polygon in mask], transforms.apply_coords))
        moved = [[next(flat) for _ in mask] for mask in points]
    return [[polygon.reshape(-1) for polygon in mask] for mask in moved]


def _together(arrays: Sequence[Array], function: Callable[[Array], Array]) -> list[Array]:
    """Apply a function of rows to arrays (N_i, K), to all of a type at once: a type determines rounding."""
    results: list[Array] = list(arrays)
    for dtype in {array.dtype for array in arrays}:
        places = [i for i, array in enumerate(arrays) if array.dtype == dtype]
        rows = function(np.concatenate([arrays[i] for i in places]))
        start = 0
        for i in places:
            results[i] = rows[start : start + len(arrays[i])]
            start += len(arrays[i])
    return results
