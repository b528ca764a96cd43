"""From an entry of a dataset to the input of a detector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from detectron2.data import DatasetMapper, detection_utils
from detectron2.data import transforms as T
from detectron2.structures import Instances
from fvcore.transforms.transform import CropTransform
from numpy.typing import NDArray

from ..errors import ConfigError
from ..utils.images import read_draft, read_image
from ..utils.pillow import MAX_PIXELS
from ..utils.seeds import seeded
from ..utils.targets import UNSUITABLE, config_target, instantiate
from ..utils.text import one_line
from .datasets.base import flip_indices
from .datasets.panoptic import read_semantic
from .objects import transform_objects
from .resizing import AugInput, to_tensor

__all__ = ["Mapper", "check_augmentations", "largest_size", "mask_format"]

HEIGHT, WIDTH = 480, 640  # pixels of an image, where any will do
MIN_SIDE = 1e-5  # pixels; smaller boxes are empty, as in detectron2


@config_target
def mask_format(points: Any) -> str:
    """The format of the masks that a mask head is trained on: ``polygon`` or ``bitmask``.

    Args:
        points: the number of points that the head samples from each mask, as PointRend does; None: the head
            uses complete masks.
    """
    return "polygon" if points is None else "bitmask"


def check_augmentations(mapper: Any, place: str) -> None:
    """Transform a black image by the augmentations of a mapper, which check few of their arguments.

    Args:
        mapper: the node of a mapper in a config; other classes than ``Mapper`` may have no augmentations.
        place: the node, for errors, such as ``dataloader.train.mapper``.

    Raises:
        ConfigError: they cannot transform it.
    """
    if "augmentations" not in mapper:
        return
    augmented = T.AugInput(np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    try:
        with seeded(0):
            T.AugmentationList(instantiate(mapper.augmentations))(augmented)
        if not all(augmented.image.shape):
            raise ValueError("nothing is left of it")
    except ConfigError:
        raise
    except UNSUITABLE as error:
        raise ConfigError(
            f"{place}.augmentations cannot transform an image of {WIDTH}x{HEIGHT} pixels: {one_line(error)}"
        ) from error


def largest_size(mapper: Any) -> tuple[int, int]:
    """Short and long side, in pixels, of the largest image that a mapper gives.

    Args:
        mapper: a node such as ``dataloader.test.mapper``; if it has no augmentations, or the first does not
            resize images, their size is unknown, and a usual one is returned.
    """
    resize: Any = next(iter(mapper.get("augmentations") or []), {})
    edges = resize.get("short_edge_length") or 0
    short = edges if isinstance(edges, int) else max(edges)
    return (short, int(resize.max_size)) if short else (HEIGHT, WIDTH)


@config_target
class Mapper(DatasetMapper):
    """detectron2's mapper, which also reads pixel classes and derives its other settings from the tasks.

    Crowds are left out, and objects without a mask if a mask head cannot do without. After a crop, boxes are
    fitted to the remaining part of their masks, or only clipped where there are no masks.

    Args:
        is_train: whether annotations are needed.
        tasks: the tasks of the detector.
        augmentations: detectron2's augmentations.
        image_format: the channel order, as in ``detectron2.data.detection_utils.read_image``.
        keypoint_names: names of the dataset's keypoints; left and right are swapped when an image is flipped.
        instance_mask_format: ``polygon``, if the dataset has polygons, or ``bitmask``.
        tight_boxes: whether boxes are fitted to cropped masks; False clips them, as mmdetection does.
        partial_masks: whether objects without a mask are kept for the box head, although the tasks include
            masks. Their masks are empty, and ``gt_has_mask`` says which objects have one.
        max_pixels: larger images are not read.
        draft_jpegs: whether JPEGs that are scaled down by more than 2 are read at a part of their size, see
            ``read_draft``; only if the first augmentation is ``ResizeShortestEdge``.

    Attributes:
        aug_input: what augments an image, and resizes it; prediction uses it as well.
    """

    aug_input: type[T.AugInput] = AugInput

    def __init__(
        self,
        is_train: bool,
        tasks: Sequence[str],
        augmentations: Sequence[T.Augmentation],
        image_format: str,
        keypoint_names: Sequence[str] = (),
        instance_mask_format: str = "polygon",
        tight_boxes: bool = True,
        partial_masks: bool = False,
        max_pixels: int = MAX_PIXELS,
        draft_jpegs: bool = False,
    ) -> None:
        super().__init__(
            is_train,
            augmentations=list(augmentations),
            image_format=image_format,
            use_instance_mask="segm" in tasks,
            use_keypoint="keypoints" in tasks,
            instance_mask_format=instance_mask_format,
            keypoint_hflip_indices=np.array(flip_indices(keypoint_names)) if keypoint_names else None,
        )
        self.tight_boxes, self.partial_masks, self.max_pixels = tight_boxes, partial_masks, max_pixels
        first: Any = next(iter(augmentations), None) if draft_jpegs else None
        resizes = isinstance(first, T.ResizeShortestEdge)
        self.short_edge: int = max(first.short_edge_length) if resizes else 0  # 0: images are read whole
        self.num_keypoints = len(keypoint_names)
        self.use_semantic = is_train and "sem_seg" in tasks

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """Read and augment an image.

        Args:
            dataset_dict: an entry of the dataset, which is not changed.

        Returns:
            The entry with ``image``, (C, H, W), 0 to 255; in training also with ``instances`` and
            ``sem_seg``, (H, W) class indices, if the tasks need them.
        """
        entry = dict(dataset_dict)
        image, draft = self._read(entry)
        semantic = read_semantic(entry).astype(np.uint8) if self.use_semantic else None
        if semantic is not None and draft:
            semantic = draft[0].apply_segmentation(semantic)
        aug_input = self.aug_input(image, sem_seg=semantic)
        transforms = T.TransformList(draft) + self.augmentations(aug_input)
        image, semantic = aug_input.image, aug_input.sem_seg
        entry["image"] = to_tensor(image)
        if not self.is_train:
            entry.pop("annotations", None)
            return entry
        if semantic is not None:
            entry["sem_seg"] = torch.as_tensor(semantic.astype(np.int64))
        if "annotations" in entry:
            entry["instances"] = self._instances(entry.pop("annotations"), transforms, image.shape[:2])
        return entry

    def _read(self, entry: dict[str, Any]) -> tuple[NDArray[Any], list[T.ResizeTransform]]:
        """The pixels of an image, and what scales the rest of it to them if it was read in part."""
        file = entry["file_name"]
        if not self.short_edge:
            image = read_image(file, self.image_format, self.max_pixels)
            detection_utils.check_image_size(entry, image)
            return image, []
        image, size = read_draft(file, self.image_format, self.max_pixels, self.short_edge)
        detection_utils.check_image_size(entry, np.broadcast_to(image[:1, :1], (*size, image.shape[2])))
        read = image.shape[:2]
        return image, [] if read == size else [T.ResizeTransform(*size, *read)]

    def _instances(
        self, annotations: Sequence[dict[str, Any]], transforms: T.TransformList, size: tuple[int, int]
    ) -> Instances:
        """The objects of an image after its transforms, which give it the size (H, W)."""
        used = [self._completed(annotation) for annotation in annotations if self._is_used(annotation)]
        has_mask = [bool(annotation.get("segmentation")) for annotation in used]
        objects = transform_objects(used, transforms, size, self.keypoint_hflip_indices)
        for transformed in objects:
            if isinstance(mask := transformed.get("segmentation"), np.ndarray):  # decoded run lengths
                transformed["segmentation"] = mask == 1  # crops are padded with another value
        has_bitmasks = any(isinstance(o.get("segmentation"), np.ndarray) for o in objects)
        mask_format = "bitmask" if has_bitmasks else self.instance_mask_format
        instances = detection_utils.annotations_to_instances(objects, size, mask_format)
        if not instances.has("gt_masks"):
            return detection_utils.filter_empty_instances(instances)
        masked = torch.tensor(has_mask)
        if self.partial_masks:
            instances.gt_has_mask = masked
        if self.tight_boxes and any(isinstance(t, CropTransform) for t in transforms.transforms):
            instances.gt_boxes.tensor[masked] = instances.gt_masks.get_bounding_boxes().tensor[masked]
        kept = instances.gt_boxes.nonempty(MIN_SIDE) & (instances.gt_masks.nonempty() | ~masked)
        return instances if kept.all() else instances[kept]

    def _is_used(self, annotation: Mapping[str, Any]) -> bool:
        lacks_mask = self.use_instance_mask and not annotation.get("segmentation")
        return not annotation.get("iscrowd") and (self.partial_masks or not lacks_mask)

    def _completed(self, annotation: Mapping[str, Any]) -> dict[str, Any]:
        """An annotation with what the tasks need, and without what they do not; what it lacks is empty."""
        needed = {
            "segmentation": (self.use_instance_mask, []),
            "keypoints": (self.use_keypoint, [0.0] * 3 * self.num_keypoints),
        }
        completed = {key: value for key, value in annotation.items() if key not in needed}
        for key, (is_needed, empty) in needed.items():
            if is_needed:
                completed[key] = annotation.get(key) or empty
        return completed
