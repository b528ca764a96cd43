"""Folders with COCO files and their images, in the layouts of several tools.

Roboflow                 train/_annotations.coco.json and train/a.jpg, valid/…, test/…
COCO, CVAT, mmdetection  annotations/instances_train2017.json, and images/train2017, train2017 or images
FiftyOne                 labels.json and data/a.jpg, also in train/ and val/
Label Studio             result.json and images/a.jpg
coco-annotator, others   one file, or train.json and val.json, beside the images or their folder
"""

from __future__ import annotations

import json
import mmap
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from ...errors import ConfigError
from . import coco_file
from .base import FolderFormat, Source
from .layout import first_files
from .tool_files import files_of_split, is_file, local_name, mentions

__all__ = ["FORMAT"]

WORDS = ('"images"', '"annotations"', '"categories"')
OTHER_FILES = re.compile(r"^(panoptic|stuff|captions|image_info)_", re.IGNORECASE)
MOST_FOLDERS = 200  # that are tried
FILE_NAME = re.compile(rb'"file_name"\s*:\s*("(?:[^"\\]|\\.)*")')
PROBES = 20  # images that decide where the images of a file are
DEPTH = 3  # of folders below the root, in which there are COCO files


def _recognize(root: Path) -> bool:
    files = [root] if root.is_file() else first_files(root, ".json", limit=20)
    return any(map(_is_coco, files))


def _is_coco(file: Path) -> bool:
    is_other = file.suffix.lower() != ".json" or OTHER_FILES.match(file.name)
    return not is_other and mentions(file, *WORDS)


def _open(root: Path, split: str, label: str) -> Source | None:
    base = root if root.is_dir() else root.parent
    deepest = len(base.parts) + DEPTH
    files, note = files_of_split(
        root, split, lambda file: len(file.parts) <= deepest and _is_coco(file), by_stem=True
    )
    if not files:
        if split == "train":
            raise ConfigError(f"{label}: there is no JSON file with 'images', 'annotations' and 'categories'")
        return None
    chosen = _without_keypoints(files)
    if len(chosen) < len(files):
        left_out = ", ".join(file.name for file in files if file not in chosen)
        note += f"{'; ' if note else ''}{left_out} is not used: set data.train_json for keypoints"
    folders = {file.parent for file in chosen}
    if len(folders) < len(chosen):
        raise ConfigError(
            f"{label}: several COCO files may be the {split} split: "
            f"{', '.join(file.relative_to(base).as_posix() for file in chosen)}; set data.{split}_json and "
            f"data.{split}_images"
        )
    images = [_image_folder(file, base) for file in chosen]
    source = coco_file.source(chosen, images, label)
    return Source(f"{label}: {split}", source.files, source.read, source.images, source.settings, note)


def _without_keypoints(files: Sequence[Path]) -> list[Path]:
    """Without files that COCO has beside those of instances, for the same images."""
    places = {file.parent for file in files if file.name.startswith("instances")}
    return [file for file in files if file.parent not in places or file.name.startswith("instances")]


def _image_folder(file: Path, root: Path) -> Path:
    """The folder in which most images of a file are, to which its file names are relative."""
    names = list(_file_names(file))
    folders = _candidates(file, root)
    hits = {folder: sum(is_file(folder / name) for name in names) for folder in folders}
    best = max(folders, key=lambda folder: hits[folder])
    return best if hits[best] else root  # in which the check searches the images by their names


def _candidates(file: Path, root: Path) -> list[Path]:
    """Folders that may contain the images of a file; first those that share a word with its name."""
    words = set(re.findall(r"[a-z]+", file.stem.lower()))
    places = dict.fromkeys((file.parent, file.parent.parent if file.parent != root else root, root))
    near = [folder for place in places for folder in (place, *_folders(place))]
    below = [folder for parent in near[:MOST_FOLDERS] if parent not in places for folder in _folders(parent)]
    folders = [*near, *below][:MOST_FOLDERS]
    return sorted(folders, key=lambda folder: not words & set(re.findall(r"[a-z]+", folder.name.lower())))


def _folders(place: Path) -> list[Path]:
    with suppress(OSError), os.scandir(place) as entries:  # which knows folders without asking for each
        return sorted(Path(entry.path) for entry in entries if entry.is_dir())
    return []


def _file_names(file: Path) -> Iterator[str]:
    """The first file names of a COCO file, which may be large; none if it is in UTF-16."""
    with (
        suppress(OSError, ValueError),
        file.open("rb") as opened,
        mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content,
    ):
        for number, match in enumerate(FILE_NAME.finditer(content)):
            if number == PROBES:
                return
            with suppress(ValueError):
                yield local_name(json.loads(match[1]))


FORMAT = FolderFormat("coco_folder", ("bbox", "segm", "keypoints"), _recognize, _open)
