"""Cityscapes (https://www.cityscapes-dataset.com): objects of 8 classes, or pixels of 19.

Its own evaluation, which this needs, is the package cityscapesscripts.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from detectron2.data import MetadataCatalog
from detectron2.data.datasets.cityscapes import _get_cityscapes_files, load_cityscapes_instances

from ...errors import ConfigError
from ..paths import published
from .base import IGNORED, Dataset, register
from .coco import BELOW

__all__ = ["CityscapesDataset"]


class CityscapesDataset(Dataset):
    """Cityscapes' fine annotations in their published layout: ``cityscapes/leftImg8bit`` and ``gtFine``."""

    name = "cityscapes"
    annotated_tasks = ("bbox", "segm", "sem_seg")

    def classes(self) -> list[str]:
        """Names of the 8 classes of objects."""
        return list(MetadataCatalog.get("cityscapes_fine_instance_seg_val").thing_classes)

    def semantic_classes(self, tasks: Sequence[str]) -> list[str]:
        """Names of the 19 classes of pixels."""
        return list(MetadataCatalog.get("cityscapes_fine_sem_seg_val").stuff_classes)

    def check(self, split: str, tasks: Sequence[str]) -> str:
        """Make sure that the folders are there, and what reads and evaluates them."""
        for package in ("cityscapesscripts", "shapely"):
            if importlib.util.find_spec(package) is None:
                raise ConfigError(
                    f"data.name={self.name} needs {package}: python -m pip install 'd2timm[cityscapes]'"
                )
        images, truth = _folders(split)
        for folder in (images, truth):
            if not folder.is_dir():
                raise ConfigError(f"data.name={self.name}: {folder}: no such folder{BELOW}")
        pictures = _stems(images, "_leftImg8bit.png")
        if not pictures:
            raise ConfigError(f"data.name={self.name}: {images} has no CITY/*_leftImg8bit.png")
        for kind in ("instanceIds.png", "labelIds.png", "polygons.json"):
            if unpaired := pictures ^ _stems(truth, f"_gtFine_{kind}"):
                raise ConfigError(
                    f"data.name={self.name}: {len(unpaired)} images, such as {min(unpaired)}, are in one of "
                    f"{images} and {truth}/CITY/*_gtFine_{kind} and not in the other"
                )
        return f"{self.name} {split}: {images}"

    def register(self, split: str, tasks: Sequence[str]) -> str:
        """The split's name in detectron2's catalogues."""
        folders = images, truth = _folders(split)
        semantic = "sem_seg" in tasks
        # detectron2 makes a file name of it
        where = hashlib.sha1(str(images.resolve()).encode()).hexdigest()[:8]
        name = f"{self.name}_{'semantic' if semantic else 'objects'}_{split}_{where}"
        return register(
            name,
            partial(_load_semantic if semantic else _load_objects, *folders),
            thing_classes=self.classes(),
            thing_dataset_id_to_contiguous_id={i: i for i in range(len(self.classes()))},
            stuff_classes=self.semantic_classes(tasks),
            ignore_label=IGNORED,
            gt_dir=str(truth),
            image_dir=str(images),
        )

    def evaluators(self, name: str, tasks: Sequence[str], folder: str) -> list[Any]:
        """Cityscapes' own numbers of masks or pixels, and COCO's of boxes, for which it has none."""
        from ...evaluation.cityscapes import CityscapesMaskEvaluator, CityscapesSemanticEvaluator
        from ...evaluation.coco import CocoEvaluator

        if "sem_seg" in tasks:
            return [CityscapesSemanticEvaluator(name)]

        chosen: list[Any] = [CocoEvaluator(name, ["bbox"], output_dir=folder)]
        return [*chosen, CityscapesMaskEvaluator(name)] if "segm" in tasks else chosen


def _stems(folder: Path, end: str) -> set[str]:
    """``CITY/CITY_SEQUENCE_FRAME`` of the files of all cities with such an end of their names."""
    return {f"{file.parent.name}/{file.name.removesuffix(end)}" for file in folder.glob(f"*/*{end}")}


def _folders(split: str) -> tuple[Path, Path]:
    return published("cityscapes", "leftImg8bit", split), published("cityscapes", "gtFine", split)


def _load_objects(images: Path, truth: Path) -> list[dict[str, Any]]:
    dicts: list[dict[str, Any]] = load_cityscapes_instances(
        str(images), str(truth), from_json=True, to_polygons=True
    )
    dicts.sort(key=lambda entry: entry["file_name"])  # folders are listed in any order
    for number, entry in enumerate(dicts, start=1):
        entry["image_id"] = number  # COCO's evaluation wants numbers
    return dicts


def _load_semantic(images: Path, truth: Path) -> list[dict[str, Any]]:
    """Pixels of the published maps of labels, which detectron2 would want converted to others before."""
    from cityscapesscripts.helpers.labels import id2label

    classes = [id2label[i].trainId if i in id2label else IGNORED for i in range(256)]
    dicts = []
    for image_file, _, label_file, json_file in _get_cityscapes_files(str(images), str(truth)):
        size = json.loads(Path(json_file).read_bytes())
        dicts.append(
            {
                "file_name": image_file,
                "image_id": Path(image_file).stem,
                "sem_seg_file_name": label_file,
                "sem_seg_classes": [c if 0 <= c < IGNORED else IGNORED for c in classes],
                "height": size["imgHeight"],
                "width": size["imgWidth"],
            }
        )
    return dicts
