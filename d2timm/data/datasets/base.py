"""What every data set has to say: its classes, its truth, and who evaluates it."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog

from ...errors import ConfigError

__all__ = ["IGNORED", "THINGS", "Dataset", "LabelledDataset", "forget", "mirrored", "register"]

IGNORED = 255  # label of pixels without truth
THINGS = "things"  # the semantic class of all objects, for panoptic detectors

SIDES = {"left": "right", "right": "left", "l": "r", "r": "l"}
SIDE = re.compile("left|right|(?<![a-z])[lr](?![a-z])")  # in names of keypoints

_REGISTERED: set[str] = set()


class Dataset(ABC):
    """A set of images with truth, as ``data.name`` names it.

    Attributes:
        name: ``data.name``.
        annotated_tasks: what it has truth for, in the names of ``d2timm.data.tasks``.
    """

    name: str
    annotated_tasks: tuple[str, ...]

    @abstractmethod
    def check(self, split: str, tasks: Sequence[str]) -> str:
        """Make sure that a split can be used for these tasks, and describe it in a line.

        Raises:
            ConfigError: a file is missing or broken, or there is nothing in it to learn from.
        """

    @abstractmethod
    def classes(self) -> list[str]:
        """Names of the classes of objects, in the order of the detector's class numbers."""

    @abstractmethod
    def register(self, split: str, tasks: Sequence[str]) -> str:
        """The split's name in detectron2's catalogues, where it is put if it is not there yet."""

    @abstractmethod
    def evaluators(self, name: str, tasks: Sequence[str], folder: str) -> list[Any]:
        """Those of a registered split.

        Args:
            name: in detectron2's catalogues.
            tasks: what the detector finds.
            folder: for detections and what the evaluators leave.
        """

    def stuff(self) -> list[str]:
        """Names of the classes of pixels that are no objects."""
        return []

    def keypoints(self) -> list[str]:
        """Names of the keypoints that each object has."""
        return []

    def semantic_classes(self, tasks: Sequence[str]) -> list[str]:
        """Names of the classes of pixels; a panoptic detector has one for all objects."""
        return [THINGS, *self.stuff()] if "panoptic_seg" in tasks else [*self.classes(), *self.stuff()]

    def labels(self, tasks: Sequence[str]) -> dict[str, list[str]]:
        """All names that a detector of these tasks gives, which a ``LabelledDataset`` can be made of."""
        return {
            "classes": self.classes() if "bbox" in tasks or "sem_seg" in tasks else [],
            "stuff": self.stuff() if "sem_seg" in tasks else [],
            "keypoints": self.keypoints() if "keypoints" in tasks else [],
        }


class LabelledDataset(Dataset):
    """The names of a set whose files need not be there: what a trained detector tells apart.

    Args:
        name: ``data.name``.
        labels: what ``Dataset.labels`` has given.
    """

    annotated_tasks = ()

    def __init__(self, name: str, labels: Mapping[str, Sequence[str]]) -> None:
        self.name, self._labels = name, labels

    def classes(self) -> list[str]:
        """Names of the classes of objects."""
        return list(self._labels["classes"])

    def stuff(self) -> list[str]:
        """Names of the classes of pixels that are no objects."""
        return list(self._labels["stuff"])

    def keypoints(self) -> list[str]:
        """Names of the keypoints that each object has."""
        return list(self._labels["keypoints"])

    def check(self, split: str, tasks: Sequence[str]) -> str:
        """Raise ConfigError: there are no images."""
        raise ConfigError("data.labels names what a trained detector tells apart: it has no images")

    def register(self, split: str, tasks: Sequence[str]) -> str:
        """The names in detectron2's catalogues, for pictures; there are no images."""
        labels = self.labels(tasks)
        metadata: dict[str, Any] = {"thing_classes": labels["classes"]}
        if "sem_seg" in tasks:
            metadata |= {"stuff_classes": self.semantic_classes(tasks), "ignore_label": IGNORED}
        if "keypoints" in tasks:
            metadata |= {"keypoint_names": labels["keypoints"]}
        return register(f"{self.name}:{metadata}", list, **metadata)

    def evaluators(self, name: str, tasks: Sequence[str], folder: str) -> list[Any]:
        """None: there is no truth."""
        return []


def register(name: str, load: Any, **metadata: Any) -> str:
    """Put a split into detectron2's catalogues, unless it is there.

    Args:
        name: of the split.
        load: gives its list of dicts.
        metadata: what detectron2 is to know of it.
    """
    if name not in DatasetCatalog:
        _REGISTERED.add(name)
        DatasetCatalog.register(name, load)
        MetadataCatalog.get(name).set(**metadata)
    return name


def forget() -> None:
    """Take the sets of earlier runs out of detectron2's catalogues."""
    while _REGISTERED:
        name = _REGISTERED.pop()
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def mirrored(keypoints: Sequence[str]) -> list[int]:
    """For each keypoint the one that takes its place when the image is flipped.

    ``left_eye`` and ``right_eye`` change places, as do ``Left`` and ``Right`` or ``L_Eye`` and ``R_Eye``;
    others keep theirs.
    """
    names = [name.lower() for name in keypoints]
    others = [SIDE.sub(lambda side: SIDES[side[0]], name) for name in names]
    return [names.index(other) if other in names else i for i, other in enumerate(others)]
