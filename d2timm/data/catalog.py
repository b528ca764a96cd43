"""The dataset that a config names, and what the other parts of a config ask about it.

The ``data`` node of a config names a dataset, or the paths of a user's own files. A dataset is registered
with detectron2 when it is first used, so that importing this module has no side effects.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from detectron2.data import DatasetCatalog

from ..errors import ConfigError
from ..utils.checks import suggest
from ..utils.targets import config_target, instantiate
from ..utils.values import check_fields, check_value
from .checks.clean_split import CleanSplit
from .checks.findings import Findings
from .datasets import base
from .datasets.base import Dataset, LabelledDataset
from .datasets.cityscapes import CityscapesDataset
from .datasets.coco import CocoDataset, CocoKeypointsDataset, CocoPanopticDataset
from .datasets.lvis import LvisDataset
from .datasets.shapes_dataset import ShapesDataset
from .datasets.voc import PascalVocDataset
from .entries import Entries, as_entries
from .formats import folder_formats
from .options import DataOptions, DatasetSettings
from .own import CUSTOM, PATHS, forget_own, name_of_root, own_dataset
from .paths import default_dataset
from .selection import log_class_counts, with_annotations
from .tasks import Task

__all__ = [
    "check_split",
    "checked_split",
    "class_names",
    "dataset_dicts",
    "dataset_name",
    "evaluators",
    "findings_of",
    "forget",
    "get_dataset",
    "keypoint_names",
    "note_of",
    "num_classes",
    "num_keypoints",
    "num_semantic_classes",
    "resolve_name",
    "splits_of",
    "tasks_of",
]

LABELS = "labels"
#: Published datasets, by ``data.name``
PUBLISHED: dict[str, type[Dataset]] = {
    cls.name: cls
    for cls in (
        ShapesDataset,
        CocoDataset,
        CocoKeypointsDataset,
        CocoPanopticDataset,
        LvisDataset,
        CityscapesDataset,
        PascalVocDataset,
    )
}


def resolve_name(data: Mapping[str, Any]) -> str:
    """The name of the dataset that a ``data`` node selects; a dataset that the user names is never replaced.

    Raises:
        ConfigError: the name is unknown, paths of another dataset are set as well, or a value has another
            type or range than declared.
    """
    check_fields(DataOptions, data, "data")
    name = _resolve(data)
    place, settings = f"data.settings.{name}", data["settings"].get(name)
    if settings is not None:
        check_value(settings, dict[str, Any], place)
        check_fields(DatasetSettings, settings, place)
    return name


def _resolve(data: Mapping[str, Any]) -> str:
    name, paths = data["name"], [key for key in PATHS if data[key]]
    if name not in data["settings"]:
        known = sorted(data["settings"])
        raise ConfigError(f"data.name={name!r}: {suggest(name, known)}; known: {', '.join(known)}")
    if data.get("root"):
        if paths:
            raise ConfigError(f"data.root and data.{paths[0]} select two datasets: leave one out")
        if name == "auto":
            return name_of_root(data)
        if name not in folder_formats():
            allowed = " or ".join(folder_formats())
            raise ConfigError(f"data.root requires data.name={allowed} or auto, not {name!r}")
    if name == "auto":
        return CUSTOM if paths else default_dataset()
    if paths and name != CUSTOM:
        raise ConfigError(f"data.name={name!r} and data.{paths[0]} select two datasets: leave one out")
    return str(name)


def get_dataset(data: Mapping[str, Any]) -> Dataset:
    """The dataset that a ``data`` node selects."""
    name = resolve_name(data)
    if data.get(LABELS):
        return LabelledDataset(name, data[LABELS])
    if name in PUBLISHED:
        return PUBLISHED[name]()
    return own_dataset(data, name)


def tasks_of(data: Mapping[str, Any]) -> list[str]:
    """The tasks of the detector, in the names of ``d2timm.data.tasks``."""
    tasks = instantiate(data["tasks"]) if data.get("tasks") is not None else ["bbox"]
    check_value(tasks, Sequence[Task], "data.tasks")
    return list(tasks)


@config_target
def class_names(data: Mapping[str, Any]) -> list[str]:
    """Names of the object classes, in the order of the detector's class indices."""
    return get_dataset(data).classes()


@config_target
def keypoint_names(data: Mapping[str, Any]) -> list[str]:
    """Names of the keypoints that the detector predicts; empty if it predicts none."""
    return get_dataset(data).keypoints() if "keypoints" in tasks_of(data) else []


@config_target
def num_classes(data: Mapping[str, Any]) -> int:
    """Number of object classes, without the background."""
    return len(class_names(data))


@config_target
def num_keypoints(data: Mapping[str, Any]) -> int:
    """Number of keypoints per object."""
    return len(get_dataset(data).keypoints())


@config_target
def num_semantic_classes(data: Mapping[str, Any]) -> int:
    """Number of pixel classes; for a panoptic detector, all objects together are one of them."""
    return len(get_dataset(data).semantic_classes(tasks_of(data)))


def dataset_name(data: Mapping[str, Any], split: str) -> str:
    """The name of a split in detectron2's catalogs; registers the split if necessary."""
    return get_dataset(data).register(split, tasks_of(data))


@config_target
def dataset_dicts(data: Mapping[str, Any], split: str) -> Entries:
    """A split in detectron2's format; training images without annotations for the tasks are left out."""
    name = dataset_name(data, split)
    loaded = DatasetCatalog.get(name)
    if not len(loaded):
        raise ConfigError(f"{name} has no images")
    entries = as_entries(loaded)
    if split == "train" and entries.has_objects:
        entries = with_annotations(entries, keypoints="keypoints" in tasks_of(data))
        if not len(entries):
            raise ConfigError(f"{name} has no image with annotations for {', '.join(tasks_of(data))}")
    if entries.has_objects:
        log_class_counts(entries, class_names(data))
    return entries


def splits_of(data: Mapping[str, Any]) -> tuple[str, ...]:
    """The splits of the dataset: ``train`` and ``val``, or one of them."""
    return get_dataset(data).splits()


def findings_of(data: Mapping[str, Any], split: str) -> Findings:
    """What was found while a split was read; nothing for published datasets."""
    return get_dataset(data).findings(split)


def checked_split(data: Mapping[str, Any], split: str) -> CleanSplit | None:
    """A split whose annotations are checked; None for published datasets."""
    return get_dataset(data).checked(split)


def note_of(data: Mapping[str, Any], split: str) -> str:
    """How a split was found or made; "" if the user has named it."""
    return get_dataset(data).note(split)


@config_target
def evaluators(data: Mapping[str, Any], split: str, output_dir: str) -> list[Any]:
    """The evaluators of a split, which follow the evaluation protocol of its dataset.

    Args:
        data: the config's ``data`` node.
        split: ``train`` or ``val``.
        output_dir: the folder for detections and for files that the evaluators write.
    """
    dataset, tasks = get_dataset(data), tasks_of(data)
    settings = data["settings"].get(dataset.name) or {}
    kept = settings.get("detections_per_image", 0)
    return dataset.evaluators(dataset.register(split, tasks), tasks, output_dir, kept)


def forget() -> None:
    """Unregister the datasets of earlier runs, and read folders again at their next use."""
    base.forget()
    forget_own()


def check_split(data: Mapping[str, Any], split: str, tasks: Sequence[str]) -> str:
    """Check that a split can be used for these tasks, and describe it in one line.

    Args:
        data: the config's ``data`` node.
        split: ``train`` or ``val``.
        tasks: the tasks of the detector.

    Raises:
        ConfigError: a file is missing or broken, or has no annotations for a task.
    """
    dataset = get_dataset(data)
    missing = [task for task in tasks if task not in dataset.annotated_tasks]
    if missing:
        others = [name for name, cls in PUBLISHED.items() if set(tasks) <= set(cls.annotated_tasks)]
        raise ConfigError(
            f"data.name={dataset.name} has no annotations for {', '.join(missing)}, which the detector "
            f"predicts: use another detector or ROI heads, or data.name={' or '.join(others)}"
        )
    return dataset.check(split, tasks)
