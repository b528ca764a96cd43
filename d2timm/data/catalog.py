"""Which data set a config means, where its files are, and whether they will do.

The ``data`` node of a config names a set, or four paths of a user's own. A set is registered with
detectron2 when it is first asked for, so nothing happens on import.
"""

from __future__ import annotations

import functools
import json
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog, get_detection_dataset_dicts
from detectron2.data.datasets import register_coco_instances

from ..errors import ConfigError
from ..names import near
from .places import COCO, SPLITS, Split, coco_2017, found
from .shapes import CLASSES, shapes_root

__all__ = [
    "check_split",
    "choose",
    "class_names",
    "dataset_dicts",
    "dataset_name",
    "forget",
    "is_given",
    "num_classes",
]

CUSTOM = "custom"
_REGISTERED: set[str] = set()
PATHS = tuple(f"{split}_{kind}" for split in SPLITS for kind in ("json", "images"))


def choose(data: Mapping[str, Any]) -> str:
    """The name of the set that a ``data`` node means; what the user names is never replaced.

    Raises:
        ConfigError: an unknown name, or a name beside paths.
    """
    name, paths = data["name"], [key for key in PATHS if data[key]]
    if name not in data["settings"]:
        known = sorted(data["settings"])
        raise ConfigError(f"data.name={name!r}: {near(name, known)}; there are {', '.join(known)}")
    if name == "auto":
        return CUSTOM if paths else found()
    if paths and name != CUSTOM:
        raise ConfigError(f"data.name={name!r} and data.{paths[0]} are two sets: leave one out")
    return str(name)


def locate(data: Mapping[str, Any], split: str) -> Split:
    """The files of a split: ``train`` or ``val``."""
    name = choose(data)
    if name == "shapes":
        root = shapes_root()
        return Split(root / "annotations" / f"instances_{split}.json", root / split)
    if name == COCO:
        return coco_2017(split)
    missing = [f"data.{split}_{kind}" for kind in ("json", "images") if not data[f"{split}_{kind}"]]
    if missing:
        raise ConfigError(f"{' and '.join(missing)} must be given: annotations in COCO format, image folder")
    paths = (Path(data[f"{split}_{kind}"]).expanduser() for kind in ("json", "images"))
    return Split(*paths)


def class_names(data: Mapping[str, Any]) -> list[str]:
    """Names of the classes, in the order of the detector's class numbers.

    Those of the training set, or of the validation set where only that is given.
    """
    name = choose(data)
    if name == "shapes":
        return list(CLASSES)  # known before the set is drawn
    if name == COCO:
        return list(MetadataCatalog.get("coco_2017_val").thing_classes)  # known without a large file
    train = data["train_json"] and Path(data["train_json"]).expanduser().is_file()
    split = "train" if train or not data["val_json"] else "val"
    file = locate(data, split).json
    if not file.is_file():
        raise ConfigError(f"{_key(data, split, 'json')}={file}: no such file")
    return _categories(_read(file))


def num_classes(data: Mapping[str, Any]) -> int:
    """Number of classes of the set, background not counted."""
    return len(class_names(data))


def dataset_name(data: Mapping[str, Any], split: str) -> str:
    """The split's name in detectron2's catalogues, where it is registered if it is not yet."""
    files = locate(data, split)
    # a name of its own for each pair of paths: runs in one process may have different files
    name = f"{choose(data)}_{split}:{files.json}:{files.images}"
    if name not in DatasetCatalog:
        _REGISTERED.add(name)
        register_coco_instances(name, {}, str(files.json), str(files.images))
        MetadataCatalog.get(name).thing_classes = class_names(data)
    return name


def forget() -> None:
    """Take the sets of earlier runs out of detectron2's catalogues."""
    while _REGISTERED:
        name = _REGISTERED.pop()
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def dataset_dicts(data: Mapping[str, Any], split: str) -> list[dict[str, Any]]:
    """The split in detectron2's format; training images without an object are left out."""
    name = dataset_name(data, split)
    dicts: list[dict[str, Any]] = get_detection_dataset_dicts(name, filter_empty=split == "train")
    return dicts


def is_given(value: Any) -> bool:
    """Whether a part of the config is there, for what depends on that."""
    return value is not None


def check_split(data: Mapping[str, Any], split: str, masks: bool) -> str:
    """Make sure that a split can be used, and describe it in a line.

    Args:
        data: the config's ``data`` node.
        split: ``train`` or ``val``.
        masks: whether objects need masks.

    Raises:
        ConfigError: a file is missing or not COCO, or there is nothing in it to learn from.
    """
    files = locate(data, split)
    if not files.json.is_file():
        raise ConfigError(f"{_key(data, split, 'json')}={files.json}: no such file")
    if not files.images.is_dir():
        raise ConfigError(f"{_key(data, split, 'images')}={files.images}: no such folder")
    if choose(data) == COCO:
        return f"{COCO} {split}: {files.json}"  # a published set is not read twice
    coco = _read(files.json)
    told = f"{_key(data, split, 'json')}={files.json}"
    images = {image["id"]: image["file_name"] for image in coco["images"]}
    known = {category["id"] for category in coco["categories"]}
    usable = [a for a in coco["annotations"] if _usable(a, images, known)]
    if not usable:
        raise ConfigError(
            f"{told}: none of its {len(coco['annotations'])} annotations is usable; one needs an image and a "
            "category of the file and a bbox [x, y, width, height] with both sides > 0"
        )
    broken = [a["id"] for a in coco["annotations"] if a["image_id"] in images and not _readable(a, known)]
    if broken:
        raise ConfigError(
            f"{told}: {len(broken)} annotations, such as that of id {broken[0]}, have no bbox "
            "[x, y, width, height] or no category of the file; leave them out"
        )
    bare = [a["id"] for a in usable if not a.get("segmentation")]
    if masks and len(bare) == len(usable):
        raise ConfigError(f"{told} has boxes but no segmentation: use lazy_configs/faster_rcnn_timm.py")
    if masks and bare:
        raise ConfigError(
            f"{told}: {len(bare)} annotations, such as that of id {bare[0]}, have no segmentation: "
            "leave them out or use lazy_configs/faster_rcnn_timm.py"
        )
    there = set(os.listdir(files.images)) if all("/" not in n for n in images.values()) else None
    absent = [
        n
        for n in images.values()
        if (n not in there if there is not None else not (files.images / n).is_file())
    ]
    if absent:
        raise ConfigError(
            f"{_key(data, split, 'images')}={files.images}: {len(absent)} of {len(images)} images of "
            f"{files.json.name} are not there, such as {absent[0]}"
        )
    names = _categories(coco)
    if names != class_names(data):
        raise ConfigError(
            f"{told}: its categories {names} are not those of the training set {class_names(data)}"
        )
    return f"{choose(data)} {split}: {len(images)} images, {len(usable)} objects, {len(names)} classes"


def _categories(coco: Mapping[str, Any]) -> list[str]:
    return [category["name"] for category in sorted(coco["categories"], key=lambda c: c["id"])]


def _usable(annotation: Any, images: Mapping[int, str], categories: set[int]) -> bool:
    return (
        annotation["image_id"] in images
        and _readable(annotation, categories)
        and not annotation.get("iscrowd")
        and min(annotation["bbox"][2:]) > 0
    )


def _readable(annotation: Any, categories: set[int]) -> bool:
    """Whether detectron2 can read an annotation."""
    box = annotation.get("bbox")
    four = isinstance(box, list) and len(box) == 4 and all(isinstance(v, (int, float)) for v in box)
    return four and annotation["category_id"] in categories


def _read(file: Path) -> dict[str, Any]:
    """The JSON of a COCO file, made sure of its lists."""
    try:
        return _read_once(file, file.stat().st_mtime_ns)
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}") from None


@functools.lru_cache(maxsize=4)
def _read_once(file: Path, changed: int) -> dict[str, Any]:
    try:
        coco = json.loads(file.read_bytes())
    except ValueError as error:
        raise ConfigError(f"{file} is not JSON: {error}") from None
    needed: dict[str, dict[str, Any]] = {
        "images": {"id": (int, str), "file_name": str, "height": int, "width": int},
        "annotations": {"id": (int, str), "image_id": (int, str), "category_id": int},
        "categories": {"id": int, "name": str},
    }
    for key, fields in needed.items():
        entries = coco.get(key) if isinstance(coco, dict) else None
        if not isinstance(entries, list):
            raise ConfigError(f"{file} is not in COCO format: it has no list {key!r}")
        for field, kind in fields.items():
            if not all(isinstance(entry, dict) and field in entry for entry in entries):
                raise ConfigError(f"{file} is not in COCO format: an entry of {key!r} has no {field!r}")
            wrong = [entry[field] for entry in entries if not isinstance(entry[field], kind)]
            if wrong:
                raise ConfigError(f"{file} is not in COCO format: {field!r} in {key!r} is {wrong[0]!r}")
    for key in needed:
        number, count = Counter(entry["id"] for entry in coco[key]).most_common(1)[0] if coco[key] else (0, 0)
        if count > 1:
            raise ConfigError(
                f"{file} is not in COCO format: {count} entries of {key!r} have the id {number}"
            )
    return dict(coco)


def _key(data: Mapping[str, Any], split: str, kind: str) -> str:
    """What the user would change to name another file."""
    return f"data.{split}_{kind}" if choose(data) == CUSTOM else f"data.name={choose(data)}: {split} {kind}"
