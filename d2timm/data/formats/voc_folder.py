"""Folders of a user's own classes in the format of Pascal VOC: an XML file for each image.

    lists, folders -> XML files of a split -> their images -> objects

VOC itself has ``Annotations``, ``JPEGImages`` and ``ImageSets/Main`` with ``train.txt`` and ``val.txt``.
Tools write files of this format in many other layouts, so that nothing but the XML files is required.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePath
from typing import Any

from ...errors import ConfigError
from ...utils.pillow import image_suffixes
from .base import FolderFormat, Reading, Source
from .building import Sample, build_coco
from .layout import divide, files_below, first_files, text_lines
from .splits import SPLIT_NAMES
from .voc_names import find_image, find_xml, index_files, index_images
from .voc_xml import read_xml

__all__ = ["FORMAT"]

#: Lists of a split, the likeliest first
LISTS = {"train": (*SPLIT_NAMES["train"], "trainval"), "val": SPLIT_NAMES["val"]}


@dataclass
class Split:
    """The annotation files of a split.

    Attributes:
        xmls: paths relative to the folder.
        lists: the lists that they come from.
        listed: whether the folder has lists of two splits, as VOC has.
        unknown: entries of the lists that have no annotation file, with the reason.
        note: how the split was found.
    """

    xmls: list[PurePath] = field(default_factory=list)
    lists: list[PurePath] = field(default_factory=list)
    listed: bool = False
    unknown: list[str] = field(default_factory=list)
    note: str = ""


def recognize_voc(root: Path) -> bool:
    """Whether a folder contains annotation files of VOC's format."""
    return root.is_dir() and any(map(_is_voc, first_files(root, ".xml")))


def open_voc(root: Path, split: str, label: str) -> Source | None:
    """Find a split of a folder: by lists of images, by folders, or else all files are for training.

    Images are found by the names of their annotation files, in the folder that is most similar to that of the
    annotation file. Difficult objects are crowds, which are used neither in training nor in evaluation.

    Args:
        root: the folder.
        split: ``train`` or ``val``.
        label: the setting and its value, for error messages.

    Raises:
        ConfigError: there are no annotation files, or none for training.
    """
    if not root.is_dir():
        raise ConfigError(
            f"{label}: no such folder; a VOC dataset is a folder with an XML file for each image"
        )
    files = files_below(root)
    xmls = [file for file in files if file.suffix.lower() == ".xml"]
    images = [file for file in files if file.suffix.lower() in image_suffixes()]
    if not xmls:
        raise ConfigError(f"{label}: no annotation files (*.xml) in this folder or below it")
    found = _find_split(root, files, xmls, split)
    if not found.xmls and not found.unknown:
        if split == "val":
            return None
        raise ConfigError(f"{label}: no annotation files for training: {found.note}")
    return Source(
        label=f"{label}: {split}",
        files=tuple(root / file for file in (*found.lists, *found.xmls)),
        read=partial(_read, root, found, images, xmls),
        settings=(found.listed, *found.unknown, *images, *xmls),
        note=found.note,
    )


def _read(
    root: Path, found: Split, images: Sequence[PurePath], xmls: Sequence[PurePath], reading: Reading
) -> dict[str, Any]:
    """The content as a COCO file has it."""
    reading.findings.add("invalid_annotation", *found.unknown)
    by_name, xmls_by_name = index_images(images), index_files(xmls)
    samples: list[Sample] = []
    for xml in found.xmls:
        try:
            described = read_xml(root / xml, str(xml), found.listed, reading.findings)
            image = find_image(xml, described.names, by_name, xmls_by_name)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            reading.findings.add("invalid_annotation", f"{xml}: {reason}")
            continue
        samples.append((root / image, described.size, described.objects))
    return build_coco(samples)


# Splits


def _find_split(root: Path, files: Sequence[PurePath], xmls: Sequence[PurePath], split: str) -> Split:
    lists = _lists(root, files)
    if not lists:
        chosen, note = divide(xmls, split)
        return Split([PurePath(file) for file in chosen], note=note)
    found, index = Split(), index_files(xmls)
    notes = []
    for base, names in lists.items():
        chosen, listed, note = _choose(names, split)
        found.listed |= listed
        notes.append(note)
        for file in chosen:
            found.lists.append(file)
            for number, line in text_lines(root / file):
                try:
                    found.xmls.append(find_xml(line, base, index))
                except ValueError as error:
                    found.unknown.append(f"{file}:{number}: {error}")
    found.xmls = list(dict.fromkeys(found.xmls))
    found.note = "; ".join(filter(None, notes))
    return found


def _lists(root: Path, files: Sequence[PurePath]) -> Mapping[PurePath, Mapping[str, PurePath]]:
    """Folder that lists refer to -> name in lower case -> list of images, for all that are not empty."""
    texts = [file for file in files if file.suffix.lower() == ".txt"]
    for place in (("imagesets", "main"), ("imagesets",)):
        found: dict[PurePath, dict[str, PurePath]] = defaultdict(dict)
        for file in texts:
            *folders, _ = file.parts
            depth = len(folders) - len(place)
            if tuple(map(str.lower, folders[max(depth, 0) :])) == place and _has_lines(root / file):
                found[PurePath(*folders[:depth])][file.stem.lower()] = file
        if found:
            return found
    # beside the folders, as PaddleDetection writes them, there may be other text files
    names = LISTS["train"] + LISTS["val"]
    beside = {file.stem.lower(): file for file in texts if len(file.parts) == 1}
    lists = {n: file for n, file in beside.items() if n in names and _has_lines(root / file)}
    return {PurePath(): lists} if any(name in lists for name in LISTS["train"]) else {}


def _choose(names: Mapping[str, PurePath], split: str) -> tuple[list[PurePath], bool, str]:
    """The lists of a split among those of a folder, whether there are lists of both splits, and a note."""
    train, val = (next((name for name in LISTS[key] if name in names), None) for key in ("train", "val"))
    if train is None:
        all_lists = ", ".join(str(file) for file in names.values())
        return (
            list(names.values()) if split == "train" else [],
            False,
            f"there is no list train.txt: the images of {all_lists} are the training split",
        )
    if train == "trainval" and "test" in names:
        val = "test"  # trainval contains val
    name = train if split == "train" else val
    if name is None:
        return [], False, ""
    usual = name in ("train", "val") and val is not None
    notes = [] if usual else [f"the {split} split is {names[name]}"]
    if "default" in names:  # CVAT's tasks without a subset
        notes.append(f"{names['default']} is not used")
    return [names[name]], val is not None, "; ".join(notes)


def _has_lines(file: Path) -> bool:
    try:
        return bool(text_lines(file))
    except OSError:
        return False


def _is_voc(file: Path) -> bool:
    """Whether an XML file is an annotation file, by its first tag."""
    try:
        with file.open("rb") as opened:
            start = opened.read(2000).replace(b"\0", b"")  # of UTF-16
    except OSError:
        return False
    tag = re.search(rb"<([\w.-]+)", start)
    return tag is not None and tag[1].lower() == b"annotation"


FORMAT = FolderFormat("voc_folder", ("bbox", "segm"), recognize_voc, open_voc)
