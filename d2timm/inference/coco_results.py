"""Write detections to one file in COCO's format.

The file is a COCO dataset whose annotations have a ``score``. Its list of annotations is also valid in COCO's
format of results, so ``COCO(annotation_file).loadRes`` accepts it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from detectron2.evaluation.coco_evaluation import instances_to_coco_json
from detectron2.structures import Instances
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from ..data.formats.coco_file import read_coco
from ..errors import ConfigError
from ..utils.files import atomic_write
from .canvas import enlarged

__all__ = ["CocoIds", "CocoResults"]


class CocoIds:
    """Image and category ids, taken from a COCO file so that detections can be compared with it.

    Ids are those of the file, of any kind.

    Args:
        file: a COCO file with ``images`` and ``categories``; None: ids count from 1.

    Attributes:
        unlisted: number of images that have a new id because the file does not list them.

    Raises:
        ConfigError: the file cannot be read, or is not in COCO's format.
    """

    def __init__(self, file: Path | None = None) -> None:
        self.file = file
        coco: Mapping[str, Any] = read_coco(file) if file else {"images": [], "categories": []}
        self._categories = {category["name"]: category["id"] for category in coco["categories"]}
        self._images = {image["file_name"]: image["id"] for image in coco["images"]}
        counts = Counter(PurePosixPath(name).name for name in self._images)
        by_base_name = {PurePosixPath(name).name: i for name, i in self._images.items()}
        self._by_base_name = {name: i for name, i in by_base_name.items() if counts[name] == 1}
        self._last = max((int(i) for i in self._images.values() if isinstance(i, int | float)), default=0)
        self._used: set[Any] = set()
        self.unlisted = 0

    def category_ids(self, names: Sequence[str]) -> list[Any]:
        """The id of each class; the file's categories are matched by name.

        Raises:
            ConfigError: the file does not have one of the classes.
        """
        if self.file is None:
            return list(range(1, len(names) + 1))
        missing = [name for name in names if name not in self._categories]
        if missing:
            raise ConfigError(f"{self.file} has no category {missing[0]!r}, which is a class of the detector")
        return [self._categories[name] for name in names]

    def image_id(self, name: str) -> Any:
        """The id of an image, matched by its path or else by a unique base name; otherwise a new id.

        Args:
            name: path of the image in the folder of images, with ``/``.
        """
        known = self._images.get(name, self._by_base_name.get(PurePosixPath(name).name))
        if known is None or known in self._used:
            self.unlisted += 1
            self._last += 1
            return self._last
        self._used.add(known)
        return known


class CocoResults:
    """Collects the detections of many images and writes them as one file.

    It writes what ``draw`` draws: objects; the segments of a panoptic detector; or one region per class of a
    semantic detector, without a score.

    Args:
        labels: names of ``classes``, ``stuff`` and ``keypoints``.
        ids: image and category ids.
        info: the ``info`` entry of the file.
    """

    def __init__(self, labels: Mapping[str, Sequence[str]], ids: CocoIds, info: Mapping[str, Any]) -> None:
        things, stuff = list(labels["classes"]), list(labels["stuff"])
        self.ids, self.info = ids, dict(info)
        self.things = len(things)
        self.category_ids = ids.category_ids([*things, *stuff])
        self.categories: list[dict[str, Any]] = [
            {"id": i, "name": name} for i, name in zip(self.category_ids, [*things, *stuff], strict=True)
        ]
        if stuff:
            for index, category in enumerate(self.categories):
                category["isthing"] = int(index < self.things)
        if labels["keypoints"]:
            for category in self.categories:
                category |= {"keypoints": list(labels["keypoints"]), "skeleton": []}
        self.images: list[dict[str, Any]] = []
        self.annotations: list[dict[str, Any]] = []
        self.videos: list[dict[str, Any]] = []

    def add_video(self, name: str, fps: float) -> int:
        """Add a video and return its id; its frames are added as images."""
        self.videos.append({"id": len(self.videos) + 1, "name": name, "fps": fps})
        return len(self.videos)

    def add(self, name: str, size: tuple[int, int], output: Mapping[str, Any], **more: Any) -> int:
        """Add an image and its detections.

        Args:
            name: file name of the image.
            size: (height, width) of the image.
            output: a detectron2 model's output for the image, on the CPU, which may have another size.
            more: further fields of the image's entry.

        Returns:
            The number of objects, segments or regions.
        """
        image_id = self.ids.image_id(name)
        self.images.append({"id": image_id, "file_name": name, "height": size[0], "width": size[1], **more})
        before = len(self.annotations)
        for index, annotation in self._annotations(output):
            number = len(self.annotations) + 1  # not 0, which pycocotools takes for "no match"
            ids = {"id": number, "image_id": image_id, "category_id": self.category_ids[index]}
            self.annotations.append({**ids, **enlarged(annotation, _size(output), size), "iscrowd": 0})
        return len(self.annotations) - before

    def write(self, file: Path) -> None:
        """Write everything added so far."""
        parts = {"info": self.info, **({"videos": self.videos} if self.videos else {})}
        parts |= {"images": self.images, "categories": self.categories, "annotations": self.annotations}
        with atomic_write(file) as partial:
            partial.write_text(json.dumps(parts))

    def _annotations(self, output: Mapping[str, Any]) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield (index into ``category_ids``, annotation) for each detection."""
        if "panoptic_seg" in output:
            segments, infos = output["panoptic_seg"]
            for info in infos:
                # stuff ids start at 1, because 0 stands for all things
                index = info["category_id"] if info["isthing"] else self.things - 1 + info["category_id"]
                score = {"score": info["score"]} if "score" in info else {}
                yield index, {**_region(segments.numpy() == info["id"]), **score}
        elif "sem_seg" in output:
            classes = output["sem_seg"].argmax(dim=0).numpy()
            for index in np.unique(classes).tolist():
                yield index, _region(classes == index)
        else:
            for annotation in _objects(output["instances"]):
                yield annotation.pop("category_id"), annotation


def _size(output: Mapping[str, Any]) -> tuple[int, int]:
    """The (height, width) of a detectron2 model's output."""
    if "instances" in output:
        height, width = output["instances"].image_size
    else:
        height, width = output["sem_seg"].shape[-2:]
    return int(height), int(width)


def _objects(instances: Instances) -> Iterator[dict[str, Any]]:
    """Yield the annotation of each object; its ``category_id`` is the detector's class index."""
    if instances.has("pred_keypoints"):
        fields = instances.get_fields()
        # detectron2 shifts keypoints in place
        fields = {**fields, "pred_keypoints": fields["pred_keypoints"].clone()}
        instances = Instances(instances.image_size, **fields)
    for annotation in instances_to_coco_json(instances, 0):
        del annotation["image_id"]
        if "segmentation" in annotation:
            annotation["area"] = int(coco_mask.area(annotation["segmentation"]))
        else:
            annotation["area"] = annotation["bbox"][2] * annotation["bbox"][3]
        if "keypoints" in annotation:
            annotation["num_keypoints"] = len(annotation["keypoints"]) // 3
        yield annotation


def _region(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """The ``bbox``, ``area`` and ``segmentation`` of a mask (H, W)."""
    rle = coco_mask.encode(np.asfortranarray(mask, np.uint8))
    box, area = coco_mask.toBbox(rle).tolist(), int(coco_mask.area(rle))
    rle["counts"] = rle["counts"].decode()
    return {"bbox": box, "area": area, "segmentation": rle}
