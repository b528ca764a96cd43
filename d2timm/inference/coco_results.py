"""Detections as one file in COCO's format, which COCO's tools load.

It is a data set whose annotations were found instead of drawn: each has a ``score``. The list of its
annotations is in COCO's format of results as well, ready for ``COCO(truth).loadRes``.
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

__all__ = ["Detections", "Ids"]


class Ids:
    """Ids of images and categories that a COCO file has, so that detections can be compared with it.

    Args:
        file: with ``images`` and ``categories``; None: there is none, ids count from 1.

    Raises:
        ConfigError: it is no file of that kind.
    """

    def __init__(self, file: Path | None = None) -> None:
        self.file = file
        coco: Mapping[str, Any] = read_coco(file) if file else {"images": [], "categories": []}
        self.categories = {category["name"]: int(category["id"]) for category in coco["categories"]}
        self._images = {image["file_name"]: int(image["id"]) for image in coco["images"]}
        bare = Counter(PurePosixPath(name).name for name in self._images)
        self._bare = {PurePosixPath(name).name: i for name, i in self._images.items()}
        self._bare = {name: i for name, i in self._bare.items() if bare[name] == 1}
        self._last = max(self._images.values(), default=0)
        self._given: set[int] = set()
        self.unknown = 0  # images that the file does not have

    def of_classes(self, names: Sequence[str]) -> list[int]:
        """Ids of classes; a file's own go by their names.

        Raises:
            ConfigError: the file does not have one.
        """
        if self.file is None:
            return list(range(1, len(names) + 1))
        missing = [name for name in names if name not in self.categories]
        if missing:
            raise ConfigError(f"{self.file} has no category {missing[0]!r}, which the detector finds")
        return [self.categories[name] for name in names]

    def of_image(self, name: str) -> int:
        """The id of an image, by its path in the folder of images or else its bare name; or a new one."""
        known = self._images.get(name, self._bare.get(PurePosixPath(name).name))
        if known is None or known in self._given:
            self.unknown += 1
            self._last += 1
            return self._last
        self._given.add(known)
        return known


class Detections:
    """What was found in images, to be written as one file.

    What is written is what is drawn: objects; of a panoptic detector its segments; of a semantic one the
    region of each class, without a score.

    Args:
        labels: names of ``classes``, ``stuff`` and ``keypoints``.
        ids: of images and categories.
        info: what else the file is to say of itself.
    """

    def __init__(self, labels: Mapping[str, Sequence[str]], ids: Ids, info: Mapping[str, Any]) -> None:
        things, stuff = list(labels["classes"]), list(labels["stuff"])
        self.ids, self.info = ids, dict(info)
        self.things = len(things)
        self.category_ids = ids.of_classes([*things, *stuff])
        self.categories: list[dict[str, Any]] = [
            {"id": i, "name": name} for i, name in zip(self.category_ids, [*things, *stuff], strict=True)
        ]
        if stuff:
            for place, category in enumerate(self.categories):
                category["isthing"] = int(place < self.things)
        if labels["keypoints"]:
            for category in self.categories:
                category |= {"keypoints": list(labels["keypoints"]), "skeleton": []}
        self.images: list[dict[str, Any]] = []
        self.annotations: list[dict[str, Any]] = []
        self.videos: list[dict[str, Any]] = []

    def add_video(self, name: str, fps: float) -> int:
        """Note a video, whose frames are added as images; returns its id."""
        self.videos.append({"id": len(self.videos) + 1, "name": name, "fps": fps})
        return len(self.videos)

    def add(self, name: str, size: tuple[int, int], output: Mapping[str, Any], **more: Any) -> int:
        """Add an image with what a detector of detectron2 gives for it.

        Args:
            name: of the file.
            size: (height, width) of the image.
            output: on the CPU.
            more: what else the file is to say of the image.

        Returns:
            How many objects or segments there are.
        """
        image_id = self.ids.of_image(name)
        image = {"id": image_id, "file_name": name, "height": size[0], "width": size[1], **more}
        self.images.append(image)
        before = len(self.annotations)
        for place, found in self._found(output):
            number = len(self.annotations) + 1  # for pycocotools an id of 0 is none
            told = {"id": number, "image_id": image_id, "category_id": self.category_ids[place]}
            self.annotations.append({**told, **found, "iscrowd": 0})
        return len(self.annotations) - before

    def write(self, file: Path) -> None:
        """Write all that was added so far."""
        parts = {"info": self.info, **({"videos": self.videos} if self.videos else {})}
        parts |= {"images": self.images, "categories": self.categories, "annotations": self.annotations}
        with atomic_write(file) as partial:
            partial.write_text(json.dumps(parts))

    def _found(self, output: Mapping[str, Any]) -> Iterator[tuple[int, dict[str, Any]]]:
        """(place of the class among all, annotation) of each thing that is found."""
        if "panoptic_seg" in output:
            segments, infos = output["panoptic_seg"]
            for info in infos:
                # stuff counts from 1 there: 0 are all things
                place = info["category_id"] if info["isthing"] else self.things - 1 + info["category_id"]
                score = {"score": info["score"]} if "score" in info else {}
                yield place, {**_region(segments.numpy() == info["id"]), **score}
        elif "sem_seg" in output:
            classes = output["sem_seg"].argmax(dim=0).numpy()
            for place in np.unique(classes).tolist():
                yield place, _region(classes == place)
        else:
            for found in _objects(output["instances"]):
                yield found.pop("category_id"), found


def _objects(instances: Instances) -> Iterator[dict[str, Any]]:
    """Annotations of objects; ``category_id`` is the detector's number of the class."""
    if instances.has("pred_keypoints"):
        fields = instances.get_fields()  # detectron2 moves keypoints in place
        fields = {**fields, "pred_keypoints": fields["pred_keypoints"].clone()}
        instances = Instances(instances.image_size, **fields)
    for found in instances_to_coco_json(instances, 0):
        del found["image_id"]
        if "segmentation" in found:
            found["area"] = int(coco_mask.area(found["segmentation"]))
        else:
            found["area"] = found["bbox"][2] * found["bbox"][3]
        if "keypoints" in found:
            found["num_keypoints"] = len(found["keypoints"]) // 3
        yield found


def _region(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """A mask (H, W) as COCO has it."""
    rle = coco_mask.encode(np.asfortranarray(mask, np.uint8))
    box, area = coco_mask.toBbox(rle).tolist(), int(coco_mask.area(rle))
    rle["counts"] = rle["counts"].decode()
    return {"bbox": box, "area": area, "segmentation": rle}
