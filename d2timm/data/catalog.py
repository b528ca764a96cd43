"""Which data set a config means, and what of it a config asks.

The ``data`` node of a config names a set, or paths of a user's own. A set is registered with detectron2 when
it is first asked for, so nothing happens on import.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from detectron2.config import instantiate
from detectron2.data import get_detection_dataset_dicts

from ..errors import ConfigError
from ..utils.checks import suggest
from .datasets import base as dataset
from .datasets.base import Dataset
from .datasets.cityscapes import CityscapesDataset
from .datasets.coco import CocoDataset, CocoKeypoints, CocoPanoptic, CustomCocoDataset, ShapesDataset
from .datasets.lvis import LvisDataset
from .datasets.voc import PascalVoc
from .formats import folder_formats
from .formats import to_coco as convert
from .paths import SPLITS, Split, default_dataset

__all__ = [
    "check_split",
    "class_names",
    "dataset_dicts",
    "dataset_name",
    "evaluators",
    "forget",
    "get_dataset",
    "keypoint_names",
    "num_classes",
    "num_keypoints",
    "num_semantic_classes",
    "resolve_name",
    "tasks_of",
]

CUSTOM = "custom"
PATHS = tuple(f"{split}_{kind}" for split in SPLITS for kind in ("json", "images"))
ROOT = "root"
LABELS = "labels"
#: Published sets
PUBLISHED: dict[str, type[Dataset]] = {
    cls.name: cls
    for cls in (
        ShapesDataset,
        CocoDataset,
        CocoKeypoints,
        CocoPanoptic,
        LvisDataset,
        CityscapesDataset,
        PascalVoc,
    )
}


def resolve_name(data: Mapping[str, Any]) -> str:
    """The name of the set that a ``data`` node means; what the user names is never replaced.

    Raises:
        ConfigError: an unknown name, or a name beside paths of another set.
    """
    name, paths = data["name"], [key for key in PATHS if data[key]]
    if name not in data["settings"]:
        known = sorted(data["settings"])
        raise ConfigError(f"data.name={name!r}: {suggest(name, known)}; there are {', '.join(known)}")
    if data.get(ROOT):
        if name not in folder_formats():
            allowed = " or ".join(folder_formats())
            raise ConfigError(f"data.root is for data.name={allowed}, not {name!r}")
        if paths:
            raise ConfigError(f"data.root and data.{paths[0]} are two sets: leave one out")
    if name == "auto":
        return CUSTOM if paths else default_dataset()
    if paths and name != CUSTOM:
        raise ConfigError(f"data.name={name!r} and data.{paths[0]} are two sets: leave one out")
    return str(name)


def get_dataset(data: Mapping[str, Any]) -> Dataset:
    """The set that a ``data`` node means."""
    name = resolve_name(data)
    if data.get(LABELS):
        return dataset.LabelledDataset(name, data[LABELS])
    if name in PUBLISHED:
        return PUBLISHED[name]()
    if name in folder_formats():
        return _folder(data, name)
    return CustomCocoDataset(CUSTOM, partial(_own, data), lambda split, kind: f"data.{split}_{kind}")


def tasks_of(data: Mapping[str, Any]) -> list[str]:
    """What the detector finds."""
    return list(instantiate(data["tasks"])) if data.get("tasks") is not None else ["bbox"]


def class_names(data: Mapping[str, Any]) -> list[str]:
    """Names of the classes of objects, in the order of the detector's class numbers."""
    return get_dataset(data).classes()


def keypoint_names(data: Mapping[str, Any]) -> list[str]:
    """Names of the keypoints that the detector finds, if it does."""
    return get_dataset(data).keypoints() if "keypoints" in tasks_of(data) else []


def num_classes(data: Mapping[str, Any]) -> int:
    """Number of classes of objects, background not counted."""
    return len(class_names(data))


def num_keypoints(data: Mapping[str, Any]) -> int:
    """Number of keypoints of each object."""
    return len(get_dataset(data).keypoints())


def num_semantic_classes(data: Mapping[str, Any]) -> int:
    """Number of classes of pixels; a panoptic detector has one for all objects."""
    return len(get_dataset(data).semantic_classes(tasks_of(data)))


def dataset_name(data: Mapping[str, Any], split: str) -> str:
    """The split's name in detectron2's catalogues, where it is registered if it is not yet."""
    return get_dataset(data).register(split, tasks_of(data))


def dataset_dicts(data: Mapping[str, Any], split: str) -> list[dict[str, Any]]:
    """The split in detectron2's format; training images with nothing to learn from are left out."""
    train = split == "train"
    dicts: list[dict[str, Any]] = get_detection_dataset_dicts(
        dataset_name(data, split),
        filter_empty=train,
        min_keypoints=1 if train and "keypoints" in tasks_of(data) else 0,
    )
    return dicts


def evaluators(data: Mapping[str, Any], split: str, output_dir: str) -> list[Any]:
    """Those that tell how good a detector is on a split, by the set's own rules."""
    chosen, tasks = get_dataset(data), tasks_of(data)
    return chosen.evaluators(chosen.register(split, tasks), tasks, output_dir)


def forget() -> None:
    """Take the sets of earlier runs out of detectron2's catalogues, and look at folders anew."""
    dataset.forget()
    _converted.cache_clear()


def check_split(data: Mapping[str, Any], split: str, tasks: Sequence[str]) -> str:
    """Make sure that a split can be used, and describe it in a line.

    Args:
        data: the config's ``data`` node.
        split: ``train`` or ``val``.
        tasks: what the detector finds.

    Raises:
        ConfigError: a file is missing or broken, or has no truth for what the detector finds.
    """
    chosen = get_dataset(data)
    missing = [task for task in tasks if task not in chosen.annotated_tasks]
    if missing:
        others = [name for name, cls in PUBLISHED.items() if set(tasks) <= set(cls.annotated_tasks)]
        raise ConfigError(
            f"data.name={chosen.name} has no truth for {', '.join(missing)}, which the detector finds: use "
            f"another detector or ROI heads, or data.name={' or '.join(others)}"
        )
    return chosen.check(split, tasks)


def _own(data: Mapping[str, Any], split: str) -> Split:
    """The files of a user's own in COCO format; several are merged."""
    missing = [f"data.{split}_{kind}" for kind in ("json", "images") if not data[f"{split}_{kind}"]]
    if missing:
        raise ConfigError(f"{' and '.join(missing)} must be given: annotations in COCO format, image folder")
    jsons, images = (_paths(data[f"{split}_{kind}"]) for kind in ("json", "images"))
    if len(jsons) == len(images) == 1:
        return Split(jsons[0], images[0])
    return convert.merge(jsons, images, f"data.{split}_json")


def _folder(data: Mapping[str, Any], name: str) -> CustomCocoDataset:
    if not data.get(ROOT):
        raise ConfigError(f"data.name={name} needs data.root: the folder of the set")
    root = Path(data[ROOT]).expanduser().absolute()
    told = f"data.name={name} data.root"
    return CustomCocoDataset(
        name,
        lambda split: _converted(name, root, split, told),
        lambda split, kind: f"{told}={root}: {split} {kind}",
        annotated_tasks=folder_formats()[name].tasks,
    )


@functools.cache  # a run asks many times, and each time thousands of files are looked at
def _converted(name: str, root: Path, split: str, told: str) -> Split:
    return folder_formats()[name].read(root, split, told)


def _paths(value: str | Sequence[str]) -> list[Path]:
    return [Path(path).expanduser() for path in ([value] if isinstance(value, str) else value)]
