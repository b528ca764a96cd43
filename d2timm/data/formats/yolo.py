"""Sets in the layout of Ultralytics' YOLO (https://docs.ultralytics.com/datasets/detect)."""

from __future__ import annotations

import glob
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml

from ...errors import ConfigError
from ..paths import Split
from .base import FolderFormat
from .to_coco import ANYWHERE, SUFFIXES, Object, keep, lines, to_coco, to_object

__all__ = ["FORMAT", "from_yolo"]

MARGIN = 1e-3  # by which rounded shares may be outside of 0 to 1


def from_yolo(root: Path, split: str, told: str) -> Split:
    """Bring a split of a YOLO set into COCO's format.

    ``data.yaml`` names the classes and the images of each split: a folder, a text file of paths, or a list
    of these. The labels of ``images/a.jpg`` are ``labels/a.txt``, a line for each object: the class and, in
    shares of the image's sides, the box (centre, width, height) or the corners of a polygon. An image
    without labels has no objects.

    Args:
        root: the YAML file, or its folder.
        split: ``train`` or ``val``.
        told: how ``root`` is called in messages.

    Raises:
        ConfigError: what is missing or broken, with its file and line.
    """
    file = root / "data.yaml" if root.is_dir() else root
    names, places = _read_yaml(file, split, told)
    images = [image for place in places for image in _images(place, f"{told}={file}: {split}")]
    pairs = [(image, _labels(image)) for image in images]
    if not any(labels.is_file() for _, labels in pairs):
        where = f"such as {pairs[0][1]}" if pairs else "because there are no images"
        raise ConfigError(f"{told}={file}: {split}: there are no labels in {places[0]}, {where}")
    return Split(
        keep(
            names,
            (path for pair in pairs for path in pair),
            lambda: to_coco(pairs, names, partial(_objects, classes=len(names))),
        ),
        ANYWHERE,
    )


def _read_yaml(file: Path, split: str, told: str) -> tuple[list[str], list[Path]]:
    """Names of the classes, and where images of a split are."""
    try:
        content = yaml.safe_load(file.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"{told}={file}: {error.strerror}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{told}={file}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, Mapping):
        raise ConfigError(f"{told}={file}: not a YOLO data set, which has names, train and val")
    if "kpt_shape" in content:
        raise ConfigError(f"{told}={file}: labels of poses (kpt_shape) are not read: give COCO files of them")
    names, base = _class_names(content.get("names")), content.get("path") or "."
    places: Any = [content[split]] if isinstance(content.get(split), str) else content.get(split)
    for key, fits, allowed in (
        ("names", names, "a list of the classes' names, or a mapping of 0, 1, … to them"),
        (split, _are_paths(places), "a folder of images, a text file of their paths, or a list of these"),
        ("path", _are_paths([base]), "the folder that the others lie in"),
    ):
        if not fits:
            raise ConfigError(f"{told}={file}: {key}: {content.get(key)!r}; it has to be {allowed}")
    return names, [_place(file.parent / Path(base).expanduser(), place) for place in places]


def _class_names(names: Any) -> list[str]:
    """Names in the order of their numbers; [] if it is none of the ways to give them."""
    if isinstance(names, Mapping):
        numbers = list(range(len(names)))
        return [str(names[i]) for i in numbers] if set(names) == set(numbers) else []
    return [str(name) for name in names] if isinstance(names, list) else []


def _are_paths(value: Any) -> bool:
    return (
        isinstance(value, list) and bool(value) and all(isinstance(v, str) and "\0" not in v for v in value)
    )


def _place(base: Path, place: str) -> Path:
    path = base / Path(place).expanduser()
    if place.startswith("../") and not path.exists():
        return base / place[3:]  # Roboflow writes ../train/images for train/images
    return path


def _images(place: Path, told: str) -> list[Path]:
    """Images of a folder and those below, or of a list."""
    if place.is_dir():
        found = glob.iglob("**/*", root_dir=place, recursive=True)  # not hidden ones; through links
        return sorted(place / name for name in found if name.lower().endswith(SUFFIXES))
    if place.is_file():
        return [place.parent / line for _, line in lines(place)]
    raise ConfigError(f"{told}: {place}: no such folder of images, or text file of their paths")


def _labels(image: Path) -> Path:
    """The labels of an image: those of the nearest folder ``images`` are in ``labels`` beside it."""
    parts = list(image.parts)
    if "images" in parts[:-1]:
        parts[len(parts) - 2 - parts[-2::-1].index("images")] = "labels"
    return Path(*parts).with_suffix(".txt")


def _objects(labels: Path, size: tuple[int, int], classes: int) -> list[Object]:
    if not labels.is_file():
        return []
    return [_object(line, size, classes, f"{labels}:{number}") for number, line in lines(labels)]


def _object(line: str, size: tuple[int, int], classes: int, told: str) -> Object:
    """An object of a line of labels.

    Args:
        line: a class and shares.
        size: width and height of the image in pixels.
        classes: how many there are.
        told: file and line, for messages.
    """
    try:
        number, *shares = int(line.split()[0]), *map(float, line.split()[1:])
    except ValueError:
        raise ConfigError(f"{told}: {line!r} is not a class and numbers") from None
    if not 0 <= number < classes:
        raise ConfigError(f"{told}: class {number} is none of the {classes} of data.yaml, which count from 0")
    outside = [share for share in shares if not -MARGIN <= share <= 1 + MARGIN]  # nan too
    if outside:
        raise ConfigError(f"{told}: {outside[0]} is no share of an image's side, which is 0 to 1")
    if len(shares) != 4 and (len(shares) < 6 or len(shares) % 2):
        raise ConfigError(
            f"{told}: {len(shares)} numbers after the class; a box has 4, a polygon an even number from 6 on"
        )
    pixels = [share * size[i % 2] for i, share in enumerate(shares)]
    if len(pixels) == 4:
        x, y, w, h = pixels
        return to_object(number, [x - w / 2, y - h / 2, w, h])
    return _polygon(number, pixels)


def _polygon(number: int, corners: Sequence[float]) -> Object:
    left, top = min(corners[::2]), min(corners[1::2])
    box = [left, top, max(corners[::2]) - left, max(corners[1::2]) - top]
    area = cv2.contourArea(np.array(corners, np.float32).reshape(-1, 2))
    return to_object(number, box, segmentation=[list(corners)], area=area)


FORMAT = FolderFormat("yolo", ("bbox", "segm"), from_yolo)
