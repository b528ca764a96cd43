"""From an entry of a data set to what a detector takes."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from detectron2.data import DatasetMapper, detection_utils
from detectron2.data import transforms as T
from detectron2.structures import Instances
from fvcore.transforms.transform import CropTransform

from ..utils.images import read_image
from .datasets.base import mirrored
from .datasets.panoptic import read_semantic

__all__ = ["Mapper", "mask_format", "test_size"]


def mask_format(points: Any) -> str:
    """The form of masks that a mask head learns of.

    Args:
        points: anything of a head that learns of points, such as PointRend's; None: of the whole mask.
    """
    return "polygon" if points is None else "bitmask"


def test_size(mapper: Any) -> tuple[int, int]:
    """Short and long side in pixels of the largest image that is evaluated.

    Args:
        mapper: the node ``dataloader.test.mapper`` of a config; its first augmentation resizes images.
    """
    resize = mapper.augmentations[0]
    return resize.short_edge_length, resize.max_size


class Mapper(DatasetMapper):
    """detectron2's mapper, which also reads the classes of pixels and finds out what else it has to do.

    Objects that lack what the detector learns are left out, as crowds are. Where images are cropped, boxes
    are made tight around what is left of their masks, or else cut.

    Args:
        is_train: whether truth is needed.
        tasks: what the detector finds.
        augmentations: detectron2's.
        image_format: as detectron2 reads images.
        keypoint_names: of the set; left and right change places when an image is flipped.
        instance_mask_format: ``polygon``, where the set has polygons, or ``bitmask``.
        tight_boxes: whether boxes are made anew of masks that are cropped; mmdetection's are only cut.
    """

    def __init__(
        self,
        is_train: bool,
        tasks: Sequence[str],
        augmentations: Sequence[T.Augmentation],
        image_format: str,
        keypoint_names: Sequence[str] = (),
        instance_mask_format: str = "polygon",
        tight_boxes: bool = True,
    ) -> None:
        super().__init__(
            is_train,
            augmentations=list(augmentations),
            image_format=image_format,
            use_instance_mask="segm" in tasks,
            use_keypoint="keypoints" in tasks,
            instance_mask_format=instance_mask_format,
            keypoint_hflip_indices=np.array(mirrored(keypoint_names)) if keypoint_names else None,
        )
        self.tight_boxes = tight_boxes
        self.use_semantic = is_train and "sem_seg" in tasks

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """Read and augment an image.

        Args:
            dataset_dict: of the set.

        Returns:
            ``image``: (C, H, W) of 0 to 255; in training ``instances`` and ``sem_seg``, (H, W) classes, as
            far as the detector learns them.
        """
        entry = copy.deepcopy(dataset_dict)
        image = read_image(entry["file_name"], self.image_format)
        detection_utils.check_image_size(entry, image)
        semantic = read_semantic(entry).astype(np.uint8) if self.use_semantic else None
        given = T.AugInput(image, sem_seg=semantic)
        transforms = self.augmentations(given)
        shape = given.image.shape[:2]
        entry["image"] = torch.as_tensor(np.ascontiguousarray(given.image.transpose(2, 0, 1)))
        if not self.is_train:
            entry.pop("annotations", None)
            return entry
        if given.sem_seg is not None:
            entry["sem_seg"] = torch.as_tensor(given.sem_seg.astype(np.int64))
        if "annotations" in entry:
            entry["instances"] = self._instances(entry.pop("annotations"), transforms, shape)
        return entry

    def _instances(
        self, annotations: Sequence[dict[str, Any]], transforms: T.TransformList, shape: tuple[int, int]
    ) -> Instances:
        """Objects as they are in an image of a shape (H, W) after its transforms."""
        parts = {"segmentation": self.use_instance_mask, "keypoints": self.use_keypoint}
        unused = [part for part, learnt in parts.items() if not learnt]
        objects = []
        for annotation in annotations:
            if annotation.get("iscrowd") or not all(annotation.get(p) for p in parts if p not in unused):
                continue
            thing = detection_utils.transform_instance_annotations(
                {key: value for key, value in annotation.items() if key not in unused},
                transforms,
                shape,
                keypoint_hflip_indices=self.keypoint_hflip_indices,
            )
            if isinstance(thing.get("segmentation"), np.ndarray):  # of run lengths
                thing["segmentation"] = thing["segmentation"] == 1  # not where a crop is padded
            objects.append(thing)
        bitmaps = any(isinstance(thing.get("segmentation"), np.ndarray) for thing in objects)
        mask_format = "bitmask" if bitmaps else self.instance_mask_format
        instances = detection_utils.annotations_to_instances(objects, shape, mask_format)
        cropped = any(isinstance(t, CropTransform) for t in transforms.transforms)
        if cropped and self.tight_boxes and instances.has("gt_masks"):
            instances.gt_boxes = instances.gt_masks.get_bounding_boxes()
        return detection_utils.filter_empty_instances(instances)
