"""The interface of a dataset: its classes, its annotations, its checks and its evaluators."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog

from ...errors import ConfigError
from ...utils.text import one_line
from ..checks.clean_split import CleanSplit
from ..checks.findings import Findings
from ..paths import SPLITS

__all__ = ["IGNORED", "THINGS", "Dataset", "LabelledDataset", "flip_indices", "forget", "register"]

IGNORED = 255  # label of pixels without annotations
THINGS = "things"  # the pixel class that stands for all objects in panoptic detectors

OPPOSITE = {"left": "right", "right": "left", "l": "r", "r": "l"}
SIDE = re.compile("left|right|(?<![a-z])[lr](?![a-z])")  # in the name of a keypoint

#: Errors of a reader whose file lacks what it takes for granted
UNEXPECTED = (
    *(ArithmeticError, AssertionError, AttributeError, LookupError, OSError),
    *(RecursionError, SyntaxError, TypeError, ValueError),  # a SyntaxError is that of XML
)

_REGISTERED: set[str] = set()


class Dataset(ABC):
    """Annotated images, in a training and a validation split.

    Attributes:
        name: the value of ``data.name`` that selects the dataset.
        annotated_tasks: the tasks that it has annotations for, in the names of ``d2timm.data.tasks``.
    """

    name: str
    annotated_tasks: tuple[str, ...]

    def splits(self) -> tuple[str, ...]:
        """The splits that it has: ``train`` and ``val``, or one of them."""
        return SPLITS

    def findings(self, split: str) -> Findings:
        """What was found while a split was read; published datasets are taken as they are."""
        return Findings()

    def checked(self, split: str) -> CleanSplit | None:
        """A split whose annotations are checked; None for published datasets."""
        return None

    def note(self, split: str) -> str:
        """How a split was found or made; "" if the user has named it."""
        return ""

    @abstractmethod
    def check(self, split: str, tasks: Sequence[str]) -> str:
        """Check that a split can be used for these tasks, and describe it in one line.

        Raises:
            ConfigError: a file is missing or broken, or contains no usable annotations.
        """

    @abstractmethod
    def classes(self) -> list[str]:
        """Names of the object classes, in the order of the detector's class indices."""

    @abstractmethod
    def register(self, split: str, tasks: Sequence[str]) -> str:
        """Register a split with detectron2, unless it is registered, and return its name in the catalogs."""

    @abstractmethod
    def evaluators(
        self, name: str, tasks: Sequence[str], folder: str, detections_per_image: int = 0
    ) -> list[Any]:
        """The evaluators of a registered split.

        Args:
            name: the split's name in detectron2's catalogs.
            tasks: the tasks of the detector.
            folder: for detections and for files that the evaluators write.
            detections_per_image: that the detector keeps at most.
        """

    def stuff(self) -> list[str]:
        """Names of the pixel classes that are not objects."""
        return []

    def keypoints(self) -> list[str]:
        """Names of the keypoints of every object."""
        return []

    def semantic_classes(self, tasks: Sequence[str]) -> list[str]:
        """Names of the pixel classes; for a panoptic detector, all objects together are one of them."""
        return [THINGS, *self.stuff()] if "panoptic_seg" in tasks else [*self.classes(), *self.stuff()]

    def labels(self, tasks: Sequence[str]) -> dict[str, list[str]]:
        """All class and keypoint names that a detector with these tasks uses, for a ``LabelledDataset``."""
        return {
            "classes": self.classes() if "bbox" in tasks or "sem_seg" in tasks else [],
            "stuff": self.stuff() if "sem_seg" in tasks else [],
            "keypoints": self.keypoints() if "keypoints" in tasks else [],
        }


class LabelledDataset(Dataset):
    """The class and keypoint names of the dataset that a detector was trained on, without its files.

    Args:
        name: ``data.name``.
        labels: the result of ``Dataset.labels``.
    """

    annotated_tasks = ()

    def __init__(self, name: str, labels: Mapping[str, Sequence[str]]) -> None:
        self.name, self._labels = name, labels

    def classes(self) -> list[str]:
        """Names of the object classes."""
        return list(self._labels["classes"])

    def stuff(self) -> list[str]:
        """Names of the pixel classes that are not objects."""
        return list(self._labels["stuff"])

    def keypoints(self) -> list[str]:
        """Names of the keypoints of every object."""
        return list(self._labels["keypoints"])

    def check(self, split: str, tasks: Sequence[str]) -> str:
        """Raise ConfigError, because there are no images."""
        raise ConfigError("data.labels holds the class names of a trained detector and has no images")

    def register(self, split: str, tasks: Sequence[str]) -> str:
        """Register the names without images, for drawings, and return their name in the catalogs."""
        labels = self.labels(tasks)
        metadata: dict[str, Any] = {"thing_classes": labels["classes"]}
        if "sem_seg" in tasks:
            metadata |= {"stuff_classes": self.semantic_classes(tasks), "ignore_label": IGNORED}
        if "keypoints" in tasks:
            metadata |= {"keypoint_names": labels["keypoints"]}
        return register(f"{self.name}:{metadata}", list, **metadata)

    def evaluators(
        self, name: str, tasks: Sequence[str], folder: str, detections_per_image: int = 0
    ) -> list[Any]:
        """Return no evaluators, because there are no annotations."""
        return []


def register(name: str, load: Callable[[], Sequence[dict[str, Any]]], **metadata: Any) -> str:
    """Add a split to detectron2's catalogs, unless it is there, and return its name.

    Args:
        name: the split's name in the catalogs.
        load: returns its images and annotations in detectron2's format.
        metadata: for detectron2's ``MetadataCatalog``.
    """
    if name not in DatasetCatalog:
        _REGISTERED.add(name)
        DatasetCatalog.register(name, partial(_load, load, name))
        MetadataCatalog.get(name).set(**metadata)
    return name


def _load(load: Callable[[], Sequence[dict[str, Any]]], name: str) -> Sequence[dict[str, Any]]:
    """Load a split; readers of published files take them for whole, and raise whatever comes."""
    try:
        return load()
    except ConfigError:
        raise
    except UNEXPECTED as error:
        reason = one_line(error, with_type=True)
        raise ConfigError(f"{name}: its files are damaged, or of another dataset: {reason}") from error


def forget() -> None:
    """Remove all splits that ``register`` added from detectron2's catalogs."""
    while _REGISTERED:
        name = _REGISTERED.pop()
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def flip_indices(keypoints: Sequence[str]) -> list[int]:
    """For each keypoint, the index of the keypoint that replaces it when the image is flipped.

    ``left_eye`` and ``right_eye`` swap, and so do ``Left`` and ``Right``, or ``L_Eye`` and ``R_Eye``; all
    other keypoints keep their index.
    """
    names = [name.lower() for name in keypoints]
    opposites = [SIDE.sub(lambda side: OPPOSITE[side[0]], name) for name in names]
    return [names.index(other) if other in names else i for i, other in enumerate(opposites)]
