"""Detections of the images of an evaluation, kept as small arrays; a thread encodes their masks meanwhile.

Instances of an image -> boxes, scores, classes and keypoints as arrays; masks -> thread -> run lengths
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from detectron2.layers.mask_ops import paste_masks_in_image
from detectron2.structures import Instances
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from torch import Tensor

from .roi_masks import ROI_MASKS
from .run_lengths import encode_roi_masks

__all__ = ["DetectionStream", "ImageDetections", "rows", "run_lengths", "write_results"]

#: Images whose masks wait for the thread. Pasted masks take 30 MB for 100 detections in 480 x 640 pixels
WAITING = 4

Array = NDArray[Any]


class ImageDetections(NamedTuple):
    """The N detections of an image.

    Attributes:
        image_id: id in the dataset.
        size: (H, W) of the image.
        boxes: (N, 4) x, y, width, height in pixels.
        scores: (N,), 0 to 1.
        classes: (N,) indices of classes.
        masks: compressed run lengths of each mask; None if there are no masks.
        keypoints: (N, K, 3) x, y, score, where (0, 0) is the centre of a pixel; None if there are none.
    """

    image_id: int
    size: tuple[int, int]
    boxes: Array
    scores: Array
    classes: Array
    masks: list[bytes] | None = None
    keypoints: Array | None = None

    @classmethod
    def of(cls, image_id: int, instances: Instances) -> ImageDetections:
        """The detections of an image without their masks.

        Args:
            image_id: id in the dataset.
            instances: on the CPU; of no detections, fields may lack.
        """
        size = (int(instances.image_size[0]), int(instances.image_size[1]))
        if not len(instances):
            return cls(image_id, size, np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.int64))
        boxes = instances.pred_boxes.tensor.numpy().copy()
        boxes[:, 2:] -= boxes[:, :2]
        keypoints = None
        if instances.has("pred_keypoints"):
            keypoints = instances.pred_keypoints.numpy().copy()
            keypoints[..., :2] -= 0.5  # annotations count pixels
        scores, classes = instances.scores.numpy().copy(), instances.pred_classes.numpy().copy()
        return cls(image_id, size, boxes, scores, classes, keypoints=keypoints)

    def results(self, image_id: Any, category_ids: Sequence[Any]) -> list[dict[str, Any]]:
        """The detections in COCO's format of results.

        Args:
            image_id: id of the image in the results.
            category_ids: ids of all classes in the results.
        """
        fields: dict[str, Sequence[Any]] = {
            "category_id": [category_ids[index] for index in self.classes.tolist()],
            "bbox": self.boxes.tolist(),
            "score": self.scores.tolist(),
        }
        if self.masks is not None:
            fields["segmentation"] = [
                {"size": [*self.size], "counts": counts.decode()} for counts in self.masks
            ]
        if self.keypoints is not None:
            fields["keypoints"] = [points.ravel().tolist() for points in self.keypoints]
        return [
            {"image_id": image_id, **dict(zip(fields, values, strict=True))}
            for values in zip(*fields.values(), strict=True)
        ]


class DetectionStream:
    """Collects detections image by image. Its thread lives from the first image with masks until ``close``.

    The thread starts after the workers that read the images, which come first. Workers that are forked later,
    in the place of one that has died, find none of its locks held: it runs NumPy's loops and pycocotools.
    """

    def __init__(self) -> None:
        self._images: list[ImageDetections] = []
        self._encoded: deque[tuple[int, Future[list[bytes]]]] = deque()
        self._thread = ThreadPoolExecutor(1, "masks")

    def add(self, image_id: int, instances: Instances) -> None:
        """Add the detections of an image; waits if the thread is too far behind.

        Args:
            image_id: id in the dataset.
            instances: with ``pred_boxes``, ``scores`` and ``pred_classes``, and optionally ``pred_masks``
                (N, H, W) or ``roi_masks`` (N, 1, M, M), and ``pred_keypoints`` (N, K, 3).
        """
        instances = instances.to("cpu")
        image = ImageDetections.of(image_id, instances)
        self._images.append(image)
        if encode := _encoder(instances):
            while len(self._encoded) >= WAITING:
                self._store_first()
            self._encoded.append((len(self._images) - 1, self._thread.submit(encode)))

    def finish(self) -> list[ImageDetections]:
        """Return the detections of all images, in the order in which they were added, and end the thread.

        Raises:
            Exception: that encoding a mask raised.
        """
        try:
            while self._encoded:
                self._store_first()
        finally:
            self.close()
        return self._images

    def close(self) -> None:
        """End the thread, which another image with masks starts again; masks that wait for it are lost."""
        self._encoded.clear()
        self._thread.shutdown(cancel_futures=True)
        self._thread = ThreadPoolExecutor(1, "masks")

    def _store_first(self) -> None:
        index, masks = self._encoded.popleft()
        self._images[index] = self._images[index]._replace(masks=masks.result())


def _encoder(instances: Instances) -> Callable[[], list[bytes]] | None:
    """What the thread computes for an image; None without masks."""
    if not len(instances):
        return None
    if instances.has(ROI_MASKS):
        masks, boxes, size = instances.get(ROI_MASKS)[:, 0], instances.pred_boxes.tensor, instances.image_size
        if bool(((masks >= 0) & (masks <= 1)).all()):
            return partial(encode_roi_masks, masks.numpy(), boxes.numpy(), size)
        return partial(_encode_pasted, paste_masks_in_image(masks, boxes, size))  # as with NaN
    return partial(_encode_pasted, instances.pred_masks) if instances.has("pred_masks") else None


def _encode_pasted(masks: Tensor) -> list[bytes]:
    """Encode masks (N, H, W) one by one, each of which pycocotools needs column by column."""
    encoded = (coco_mask.encode(np.asfortranarray(mask.numpy(), np.uint8)) for mask in masks)
    return [rle["counts"] for rle in encoded]


def rows(
    images: Sequence[ImageDetections], image_ids: Mapping[int, int], category_ids: Sequence[int]
) -> NDArray[np.float64]:
    """All detections as (N, 7): image, x, y, width, height, score, category.

    Args:
        images: with detections.
        image_ids: id in the dataset -> id in the result.
        category_ids: ids of all classes in the result.
    """
    if not any(len(image.scores) for image in images):
        return np.zeros((0, 7))
    numbers = np.repeat([image_ids[image.image_id] for image in images], [len(i.scores) for i in images])
    boxes, scores, classes = (
        np.concatenate([getattr(image, field) for image in images if len(image.scores)])
        for field in ("boxes", "scores", "classes")
    )
    return np.column_stack([numbers, boxes, scores, np.array(category_ids)[classes]]).astype(np.float64)


def run_lengths(images: Iterable[ImageDetections]) -> list[dict[str, Any]]:
    """The masks of all detections in COCO's format."""
    return [{"size": [*image.size], "counts": counts} for image in images for counts in image.masks or ()]


def write_results(
    file: Path,
    images: Iterable[ImageDetections],
    image_ids: Callable[[int], Any],
    category_ids: Sequence[Any],
) -> None:
    """Write COCO's file of results, image by image.

    Args:
        file: is replaced.
        images: with detections.
        image_ids: id in the dataset -> id in the file.
        category_ids: ids of all classes in the file.
    """
    separator = ""
    with file.open("w") as out:
        out.write("[")
        for image in images:
            if len(image.scores):
                results = image.results(image_ids(image.image_id), category_ids)
                out.write(separator + json.dumps(results)[1:-1])
                separator = ", "
        out.write("]")
