"""Datasets in YOLO's layout (https://docs.ultralytics.com/datasets/detect): a label file for each image.

declaration -> images of a split -> label files -> objects in pixels
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from ...errors import ConfigError
from ...utils.pillow import image_suffixes
from .base import FolderFormat, Reading, Source
from .building import Sample, build_coco, images_below
from .layout import divide, exists, first_files, locate, path_parts, text_lines
from .yolo_config import YAML_SUFFIXES, Declaration, find_declaration, is_dataset, read_declaration
from .yolo_labels import Label, read_labels, to_annotations

__all__ = ["FORMAT"]

LABEL_LINE = re.compile(r"\d+(\.0*)?([ \t]+-?\d[\d.eE+-]*){4,}$")
OBB_CORNERS = 8  # numbers of a label with four corners


@dataclass
class Split:
    """The images of a split.

    Attributes:
        images: in the order of the declaration.
        folders: the folders that they come from.
        lists: the lists that they come from.
        note: how the split was found.
    """

    images: list[Path] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)
    lists: list[Path] = field(default_factory=list)
    note: str = ""


def recognize_yolo(root: Path) -> bool:
    """Whether a folder or file declares a YOLO dataset, or a folder contains YOLO's label files."""
    if root.is_file():
        is_yaml = root.suffix.lower() in YAML_SUFFIXES
        return is_dataset(root) if is_yaml else root.name.lower() == "obj.data"
    declared, texts = find_declaration(root), first_files(root, ".txt", limit=20)
    if declared and declared[0].suffix.lower() != ".txt":
        # Roboflow's export of oriented boxes has a data.yaml, and labels in the format of DOTA
        return not any(file.parent.name.lower().startswith("labeltxt") for file in texts)
    # a list of classes.txt alone may belong to anything
    return any(map(_has_labels, texts))


def open_yolo(root: Path, split: str, label: str) -> Source | None:
    """Find a split of a YOLO dataset.

    ``data.yaml`` contains the class names and the images of each split: a folder, a text file of paths, or a
    list of these. The labels of ``images/a.jpg`` are in ``labels/a.txt``, or beside the image if there is no
    such folder. An image without a label file has no objects. Without ``data.yaml``, the class names are in a
    list, and images without a label file are left out, as they are not labelled yet.

    Args:
        root: the folder, or the file that declares the dataset.
        split: ``train`` or ``val``.
        label: the setting and its value, for error messages.

    Raises:
        ConfigError: the declaration is missing or broken, or there are no images or labels for training.
    """
    declared = read_declaration(root, label)
    folder = declared.file.parent if root.is_file() else root
    at = label if declared.file == root else f"{label}: {declared.file.name}"
    found = _undeclared(root, split) if declared.sources is None else _declared(declared, split, at)
    labels = _label_files(found.images)
    if split == "train" and not any(file.is_file() for file in labels):
        places = ", ".join(map(str, [*found.folders, *found.lists])) or "nothing is declared"
        example = f", such as {labels[0]}" if labels else ""
        raise ConfigError(
            f"{at}: train: {places}: no {'label files' if labels else 'labelled images'}{example}"
        )
    if not found.images:
        return None
    orphans = _orphans(found, labels)
    return Source(
        label=f"{label}: {split}",
        files=(declared.file, *found.lists, *labels, *orphans),
        read=partial(_read, folder, declared, list(zip(found.images, labels, strict=True)), orphans),
        settings=(declared, *found.images),
        note=found.note,
    )


def _read(
    root: Path,
    declared: Declaration,
    pairs: Sequence[tuple[Path, Path]],
    orphans: Sequence[Path],
    reading: Reading,
) -> dict[str, Any]:
    """The content as a COCO file has it."""
    findings, keypoints = reading.findings, declared.keypoints
    headers = reading.headers([image for image, _ in pairs])
    described: list[tuple[Path, list[Label]]] = []
    for image, file in pairs:
        name = os.path.relpath(file, root)
        labels = read_labels(file, name, declared.classes, keypoints, findings)
        if labels is not None:
            described.append((image, labels))
    objects = [label for _, labels in described for label in labels]
    if objects and not keypoints and all(len(label.fractions) == OBB_CORNERS for label in objects):
        files = dict.fromkeys(label.source.rpartition(":")[0] for label in objects)
        findings.add("oriented_box", *files)
    findings.add("missing_image", *(f"{os.path.relpath(f, root)}: no image of this name" for f in orphans))
    samples: list[Sample] = []
    for image, labels in described:
        header = headers[image]
        size = None if header.problem else header.shown
        samples.append((image, size, to_annotations(labels, size, keypoints) if size else ()))
    return build_coco(samples, declared.names, keypoints.names if keypoints else ())


# Images


def _declared(declared: Declaration, split: str, label: str) -> Split:
    """The images of the first key of a split that has any."""
    found = Split()
    for key, entries in declared.entries(split):
        found, moved = Split(), False
        for entry in entries:
            place = locate(entry, declared.bases)
            if place is None:
                folders = " or ".join(map(str, declared.bases))
                raise ConfigError(
                    f"{label}: {key}: {entry!r}: no such folder of images, or text file of their paths, "
                    f"in {folders}"
                )
            # Roboflow writes ../train/images for train/images
            usual = declared.file.parent / declared.path / entry.removeprefix("../")
            moved |= not exists(usual)
            _add(found, place, declared.bases)
        if moved or key == "test":
            places = ", ".join(map(str, [*found.folders, *found.lists]))
            found.note = f"the {split} split is {places}"
        if found.images:
            break
    return found


def _add(found: Split, place: Path, bases: Sequence[Path]) -> None:
    """Add the images of a folder or of a list."""
    if place.is_dir():
        found.folders.append(place)
        found.images += images_below(place)
        return
    if place.suffix.lower() in image_suffixes():
        found.images.append(place)
        return
    found.lists.append(place)
    try:
        lines = text_lines(place)
    except OSError as error:
        raise ConfigError(f"{place} cannot be read: {error.strerror}") from None
    for _, line in lines:
        image = locate(line, (place.parent, *bases, Path.cwd()))
        found.images.append(image or place.parent.joinpath(*path_parts(line)))


def _undeclared(root: Path, split: str) -> Split:
    """The labelled images of a folder without a declaration of its splits."""
    images = images_below(root)
    pairs = zip(images, _label_files(images), strict=True)
    labelled = [image.relative_to(root) for image, labels in pairs if labels.is_file()]
    chosen, note = divide(labelled, split)
    return Split([root / image for image in chosen], note=note)


# Labels


def _label_files(images: Iterable[Path]) -> list[Path]:
    """The label files of images, which may be missing."""
    folders: dict[Path, Path] = {}
    files = []
    for image in images:
        folder = image.parent
        if folder not in folders:
            folders[folder] = _label_folder(folder)
        files.append(folders[folder] / f"{image.stem}.txt")
    return files


def _label_folder(images: Path) -> Path:
    """The folder of labels: the last ``images`` in the path is ``labels``, if that exists."""
    parts = list(images.parts)
    if "images" in parts:
        last = len(parts) - parts[::-1].index("images")
        if Path(*parts[: last - 1], "labels").is_dir():
            return _replaced(images, "images", "labels")
    return images


def _replaced(path: Path, folder: str, other: str) -> Path:
    """A path with another name for the last of its folders that has this name, if there is one."""
    parts = list(path.parts)
    if folder in parts:
        parts[len(parts) - 1 - parts[::-1].index(folder)] = other
    return Path(*parts)


def _orphans(found: Split, labels: Sequence[Path]) -> list[Path]:
    """Label files whose image does not exist, in the folders of a split."""
    known = set(labels)
    places = {file.parent: "*.txt" for file in labels} | {_label_folder(f): "**/*.txt" for f in found.folders}
    stems: dict[Path, set[str]] = {}
    orphans: dict[Path, None] = {}
    for place, pattern in places.items():
        for name in sorted(glob.iglob(pattern, root_dir=place, recursive=True)):
            file = place / name
            folders = () if file in known else (file.parent, _replaced(file.parent, "labels", "images"))
            for folder in folders:
                if folder not in stems:
                    stems[folder] = {image.stem for image in images_below(folder, recursive=False)}
            if folders and not any(file.stem in stems[folder] for folder in folders):
                orphans[file] = None
    return [file for file in orphans if _has_labels(file)]


def _has_labels(file: Path) -> bool:
    """Whether the first line of a text file is a label."""
    try:
        lines = text_lines(file)
    except OSError:
        return False
    return bool(lines) and LABEL_LINE.match(lines[0][1]) is not None


FORMAT = FolderFormat("yolo", ("bbox", "segm", "keypoints"), recognize_yolo, open_yolo)
