"""Datasets in the layout of Ultralytics' YOLO (https://docs.ultralytics.com/datasets/detect)."""

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
from ...utils.text import one_line
from ..paths import Split
from .base import FolderFormat
from .to_coco import (
    IMAGE_ROOT,
    SUFFIXES,
    Annotation,
    build_coco,
    cached_coco_file,
    read_lines,
    to_annotation,
)

__all__ = ["FORMAT", "from_yolo"]

TOLERANCE = 1e-3  # by which rounded coordinates may exceed 0 to 1


def from_yolo(root: Path, split: str, label: str) -> Split:
    """Convert a split of a YOLO dataset to COCO's format.

    ``data.yaml`` contains the class names and the images of each split: a folder, a text file of paths, or a
    list of these. The labels of ``images/a.jpg`` are in ``labels/a.txt``, one line per object: the class
    index and, as fractions of the image's sides, the box (centre, width, height) or the corners of a polygon.
    An image without a label file has no objects.

    Args:
        root: the YAML file, or its folder.
        split: ``train`` or ``val``.
        label: the name of ``root`` in error messages.

    Raises:
        ConfigError: a file is missing or broken; the message contains the file and the line.
    """
    file = root / "data.yaml" if root.is_dir() else root
    names, sources = _read_yaml(file, split, label)
    images = [image for source in sources for image in _images(source, f"{label}={file}: {split}")]
    pairs = [(image, _label_file(image)) for image in images]
    if not any(labels.is_file() for _, labels in pairs):
        reason = f"such as {pairs[0][1]}" if pairs else "because there are no images"
        raise ConfigError(f"{label}={file}: {split}: no label files for {sources[0]}, {reason}")
    return Split(
        cached_coco_file(
            names,
            (path for pair in pairs for path in pair),
            lambda: build_coco(pairs, names, partial(_annotations, num_classes=len(names))),
        ),
        IMAGE_ROOT,
    )


def _read_yaml(file: Path, split: str, label: str) -> tuple[list[str], list[Path]]:
    """The class names, and the folders and lists of a split's images."""
    try:
        content = yaml.safe_load(file.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"{label}={file}: {error.strerror}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{label}={file}: not YAML: {one_line(error)}") from None
    if not isinstance(content, Mapping):
        raise ConfigError(f"{label}={file}: not a YOLO dataset, which has the keys names, train and val")
    if "kpt_shape" in content:
        raise ConfigError(
            f"{label}={file}: pose labels (kpt_shape) are not supported: convert them to COCO files"
        )
    names, base = _class_names(content.get("names")), content.get("path") or "."
    sources: Any = [content[split]] if isinstance(content.get(split), str) else content.get(split)
    for key, valid, allowed in (
        ("names", names, "a list of the class names, or a mapping from 0, 1, … to them"),
        (split, _are_paths(sources), "a folder of images, a text file of their paths, or a list of these"),
        ("path", _are_paths([base]), "the folder that contains the others"),
    ):
        if not valid:
            raise ConfigError(f"{label}={file}: {key}: {content.get(key)!r} is not {allowed}")
    return names, [_source(file.parent / Path(base).expanduser(), source) for source in sources]


def _class_names(names: Any) -> list[str]:
    """Class names in the order of their indices; [] if the value has another form."""
    if isinstance(names, Mapping):
        indices = list(range(len(names)))
        return [str(names[i]) for i in indices] if set(names) == set(indices) else []
    return [str(name) for name in names] if isinstance(names, list) else []


def _are_paths(value: Any) -> bool:
    return (
        isinstance(value, list) and bool(value) and all(isinstance(v, str) and "\0" not in v for v in value)
    )


def _source(base: Path, source: str) -> Path:
    path = base / Path(source).expanduser()
    if source.startswith("../") and not path.exists():
        return base / source[3:]  # Roboflow writes ../train/images for train/images
    return path


def _images(source: Path, label: str) -> list[Path]:
    """The images below a folder, or in a list."""
    if source.is_dir():
        names = glob.iglob("**/*", root_dir=source, recursive=True)  # skips hidden files and follows links
        return sorted(source / name for name in names if name.lower().endswith(SUFFIXES))
    if source.is_file():
        return [source.parent / line for _, line in read_lines(source)]
    raise ConfigError(f"{label}: {source}: no such folder of images, or text file of their paths")


def _label_file(image: Path) -> Path:
    """The label file of an image: in its path, the last folder ``images`` is replaced by ``labels``."""
    parts = list(image.parts)
    if "images" in parts[:-1]:
        parts[len(parts) - 2 - parts[-2::-1].index("images")] = "labels"
    return Path(*parts).with_suffix(".txt")


def _annotations(labels: Path, size: tuple[int, int], num_classes: int) -> list[Annotation]:
    if not labels.is_file():
        return []
    return [_annotation(line, size, num_classes, f"{labels}:{number}") for number, line in read_lines(labels)]


def _annotation(line: str, size: tuple[int, int], num_classes: int, label: str) -> Annotation:
    """The annotation of one line of a label file.

    Args:
        line: a class index and fractions of the image's sides.
        size: width and height of the image in pixels.
        num_classes: number of classes.
        label: file and line, for error messages.
    """
    try:
        class_index, *fractions = int(line.split()[0]), *map(float, line.split()[1:])
    except ValueError:
        raise ConfigError(f"{label}: {line!r} is not a class index and numbers") from None
    if not 0 <= class_index < num_classes:
        raise ConfigError(f"{label}: class {class_index} is not one of data.yaml's, 0 to {num_classes - 1}")
    outside = [v for v in fractions if not -TOLERANCE <= v <= 1 + TOLERANCE]  # includes nan
    if outside:
        raise ConfigError(f"{label}: {outside[0]} is not a fraction of an image's side, 0 to 1")
    if len(fractions) != 4 and (len(fractions) < 6 or len(fractions) % 2):
        raise ConfigError(
            f"{label}: {len(fractions)} numbers after the class; a box has 4, a polygon an even number >= 6"
        )
    pixels = [fraction * size[i % 2] for i, fraction in enumerate(fractions)]
    if len(pixels) == 4:
        x, y, w, h = pixels
        return to_annotation(class_index, [x - w / 2, y - h / 2, w, h])
    return _polygon(class_index, pixels)


def _polygon(class_index: int, corners: Sequence[float]) -> Annotation:
    """An annotation with a mask; ``corners`` are x0, y0, x1, y1, ... in pixels."""
    left, top = min(corners[::2]), min(corners[1::2])
    box = [left, top, max(corners[::2]) - left, max(corners[1::2]) - top]
    area = cv2.contourArea(np.array(corners, np.float32).reshape(-1, 2))
    return to_annotation(class_index, box, segmentation=[list(corners)], area=area)


FORMAT = FolderFormat("yolo", ("bbox", "segm"), from_yolo)
