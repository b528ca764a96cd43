"""A user's own dataset: the splits that the ``data`` node of a config names, or that are found or made."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..utils.pillow import MAX_PIXELS
from .checks.clean import clean, divide
from .checks.clean_split import CleanSplit
from .checks.partition import Part
from .datasets.base import Dataset
from .datasets.coco import CocoDataset, CocoKeypointsDataset, CustomDataset
from .formats import coco_file, folder_formats, recognize
from .formats.base import Source
from .paths import SPLITS

__all__ = ["CUSTOM", "PATHS", "checkable", "forget_own", "name_of_root", "own_dataset"]

CUSTOM = "custom"
#: Keys of ``data`` that name a user's COCO files and the folders of their images
PATHS = tuple(f"{split}_{kind}" for split in SPLITS for kind in ("json", "images"))


def own_dataset(data: Mapping[str, Any], name: str) -> CustomDataset:
    """The user's own dataset that a ``data`` node selects.

    Args:
        data: the config's ``data`` node, checked.
        name: ``custom`` or the name of a format.
    """
    on_error = data.get("on_error", "skip")
    tasks = folder_formats()[name].tasks if name in folder_formats() else ("bbox", "segm", "keypoints")
    return CustomDataset(name, partial(_open, _key(data, name)), tasks, on_error)


def checkable(dataset: Dataset) -> CustomDataset:
    """A dataset whose files are checked, also if it is a published one, whose files are usually trusted.

    Raises:
        ConfigError: the dataset has no COCO files, or no split at all, or one that cannot be read.
    """
    if isinstance(dataset, CustomDataset):
        if not sum(dataset.has(split) for split in SPLITS):  # which reads both of them
            dataset.split("train")  # an error that names the settings
        return dataset
    if not isinstance(dataset, CocoDataset) or type(dataset) not in (CocoDataset, CocoKeypointsDataset):
        raise ConfigError(f"data.name={dataset.name}: only a user's own data and COCO's can be checked")
    published = dataset

    @functools.cache
    def open_split(split: str) -> CleanSplit:
        published.check(split, ())
        files = published.files(split)
        return clean(
            coco_file.source([files.json], [files.images], published.label(split, "json")), MAX_PIXELS
        )

    return CustomDataset(dataset.name, open_split, dataset.annotated_tasks)


def name_of_root(data: Mapping[str, Any]) -> str:
    """The name of the format of ``data.root``, as its files show it."""
    return _recognize(_path(data["root"]))


def forget_own() -> None:
    """Look at files again at their next use, which happens once in a process otherwise."""
    _open.cache_clear()
    _recognize.cache_clear()


@functools.cache
def _recognize(root: Path) -> str:
    return recognize(root).name


def _key(data: Mapping[str, Any], name: str) -> tuple[tuple[str, Any], ...]:
    """All that the splits depend on, as a key of a cache."""
    share, pixels = data.get("val_share"), data.get("max_pixels", MAX_PIXELS)
    values: dict[str, Any] = {"name": name, "share": share, "seed": data.get("val_seed", 0), "pixels": pixels}
    values["outside"] = bool(data.get("images_outside"))
    for key in (*PATHS, "root"):
        value = data.get(key)
        values[key] = tuple(map(_path, _as_list(value))) if value else ()
    return tuple(values.items())


@functools.cache  # one run asks many times, and each time thousands of files would be looked at
def _open(key: tuple[tuple[str, Any], ...], split: str) -> CleanSplit | None:
    """A split of the dataset, or None if it has no such split."""
    settings = dict(key)
    if settings["share"]:
        return _part(settings, split)
    source = _source(settings, split)
    if source is None:
        return None
    categories = _trained_categories(settings) if split == "val" else None
    return clean(source, settings["pixels"], categories, _folders(settings, split))


def _part(settings: Mapping[str, Any], split: str) -> CleanSplit | None:
    """The training images without those that are held out, or these; None if there are no training images."""
    if (val := _source(settings, "val")) is not None:
        raise ConfigError(
            f"data.val_share={settings['share']}: there is a validation split already, {val.label}"
        )
    train = _source(settings, "train")
    if train is None:
        return None
    return divide(
        clean(train, settings["pixels"], within=_folders(settings, "train")),
        Part(settings["share"], settings["seed"], held_out=split == "val"),
    )


def _trained_categories(settings: Mapping[str, Any]) -> Sequence[Mapping[str, Any]] | None:
    """The categories of the training split; None if there is none, as for an evaluation elsewhere."""
    try:
        train = _source(settings, "train")
    except ConfigError:  # the check of the training split raises it again
        return None
    opened = _open(tuple(settings.items()), "train") if train is not None else None
    return None if opened is None else opened.about["categories"]


def _folders(settings: Mapping[str, Any], split: str) -> Sequence[Path] | None:
    """The folders that the images of a split may be in; None: any."""
    if settings["outside"]:
        return None
    folders: Sequence[Path] = settings[f"{split}_images" if settings["name"] == CUSTOM else "root"]
    return folders


def _source(settings: Mapping[str, Any], split: str) -> Source | None:
    if settings["name"] == CUSTOM:
        return _files(settings, split)
    if not settings["root"]:
        raise ConfigError(f"data.name={settings['name']} needs data.root: the folder of the dataset")
    (root,) = settings["root"]
    label = f"data.name={settings['name']} data.root={root}"
    return folder_formats()[settings["name"]].open(root, split, label)


def _files(settings: Mapping[str, Any], split: str) -> Source | None:
    """The user's own files in COCO format."""
    keys = [f"{split}_{kind}" for kind in ("json", "images")]
    missing = [f"data.{key}" for key in keys if not settings[key]]
    if len(missing) == len(keys):
        return None
    if missing:
        raise ConfigError(
            f"{missing[0]} must be set: annotations in COCO format, and the folder of their images"
        )
    jsons, images = (settings[key] for key in keys)
    return coco_file.source(jsons, images, f"data.{split}_json")


def _as_list(value: Any) -> Sequence[Any]:
    return [value] if isinstance(value, (str, int, float, Path)) else list(value)


def _path(value: Any) -> Path:
    return Path(os.path.expanduser(str(value)))  # a name that is a number is a path as well
