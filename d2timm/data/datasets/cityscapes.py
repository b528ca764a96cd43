"""Cityscapes (https://www.cityscapes-dataset.com): objects of 8 classes, or pixels of 19 classes.

Reading and evaluating it needs its own package, cityscapesscripts.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from detectron2.data import MetadataCatalog
from detectron2.data.datasets.cityscapes import _get_cityscapes_files, load_cityscapes_instances

from ...errors import ConfigError
from ...utils.json_file import read_json
from ..paths import PUBLISHED_HINT, published
from .base import IGNORED, Dataset, register

__all__ = ["CityscapesDataset"]


class CityscapesDataset(Dataset):
    """Cityscapes' fine annotations in their published layout: ``cityscapes/leftImg8bit`` and ``gtFine``."""

    name = "cityscapes"
    annotated_tasks = ("bbox", "segm", "sem_seg")

    def classes(self) -> list[str]:
        """Names of the 8 object classes."""
        return list(MetadataCatalog.get("cityscapes_fine_instance_seg_val").thing_classes)

    def semantic_classes(self, tasks: Sequence[str]) -> list[str]:
        """Names of the 19 pixel classes."""
        return list(MetadataCatalog.get("cityscapes_fine_sem_seg_val").stuff_classes)

    def check(self, split: str, tasks: Sequence[str]) -> str:
        """Check that the packages are installed and the files exist, and describe the split in one line."""
        for package in ("cityscapesscripts", "shapely"):
            if importlib.util.find_spec(package) is None:
                raise ConfigError(
                    f"data.name={self.name} needs {package}: python -m pip install 'd2timm[cityscapes]'"
                )
        images, annotations = _folders(split)
        for folder in (images, annotations):
            if not folder.is_dir():
                raise ConfigError(f"data.name={self.name}: {folder}: no such folder{PUBLISHED_HINT}")
        frames = _frames(images, "_leftImg8bit.png")
        if not frames:
            raise ConfigError(f"data.name={self.name}: {images} has no CITY/*_leftImg8bit.png")
        for kind in ("instanceIds.png", "labelIds.png", "polygons.json"):
            if unpaired := frames ^ _frames(annotations, f"_gtFine_{kind}"):
                raise ConfigError(
                    f"data.name={self.name}: {len(unpaired)} frames, such as {min(unpaired)}, are in only "
                    f"one of {images} and {annotations}/CITY/*_gtFine_{kind}"
                )
        return f"{self.name} {split}: {images}"

    def register(self, split: str, tasks: Sequence[str]) -> str:
        """Register a split with detectron2, unless it is registered, and return its name in the catalogs."""
        images, annotations = _folders(split)
        semantic = "sem_seg" in tasks
        # a hash instead of the path, because detectron2 uses the name as a file name
        location = hashlib.sha1(str(images.resolve()).encode()).hexdigest()[:8]
        name = f"{self.name}_{'semantic' if semantic else 'objects'}_{split}_{location}"
        return register(
            name,
            partial(_load_semantic if semantic else _load_objects, images, annotations),
            thing_classes=self.classes(),
            thing_dataset_id_to_contiguous_id={i: i for i in range(len(self.classes()))},
            stuff_classes=self.semantic_classes(tasks),
            ignore_label=IGNORED,
            gt_dir=str(annotations),
            image_dir=str(images),
        )

    def evaluators(
        self, name: str, tasks: Sequence[str], folder: str, detections_per_image: int = 0
    ) -> list[Any]:
        """Cityscapes' own metrics of masks or pixels, and COCO's of boxes, which Cityscapes lacks."""
        from ...evaluation.cityscapes import CityscapesMaskEvaluator, CityscapesSemanticEvaluator
        from ...evaluation.coco import CocoEvaluator

        if "sem_seg" in tasks:
            return [CityscapesSemanticEvaluator(name)]

        evaluators: list[Any] = [
            CocoEvaluator(name, ["bbox"], folder, detections_per_image=detections_per_image)
        ]
        return [*evaluators, CityscapesMaskEvaluator(name)] if "segm" in tasks else evaluators


def _frames(folder: Path, suffix: str) -> set[str]:
    """``CITY/CITY_SEQUENCE_FRAME`` of all files with this suffix, in the folders of all cities."""
    return {f"{file.parent.name}/{file.name.removesuffix(suffix)}" for file in folder.glob(f"*/*{suffix}")}


def _folders(split: str) -> tuple[Path, Path]:
    """The folders of images and annotations."""
    return published("cityscapes", "leftImg8bit", split), published("cityscapes", "gtFine", split)


def _load_objects(images: Path, annotations: Path) -> list[dict[str, Any]]:
    dicts: list[dict[str, Any]] = load_cityscapes_instances(
        str(images), str(annotations), from_json=True, to_polygons=True
    )
    dicts.sort(key=lambda entry: entry["file_name"])  # the order of a folder's files is arbitrary
    for number, entry in enumerate(dicts, start=1):
        entry["image_id"] = number  # COCO's evaluation needs integer ids
    return dicts


def _load_semantic(images: Path, annotations: Path) -> list[dict[str, Any]]:
    """Images with their published label maps, which detectron2 would require converted to training ids."""
    from cityscapesscripts.helpers.labels import id2label

    classes = [id2label[i].trainId if i in id2label else IGNORED for i in range(256)]
    dicts = []
    for image_file, _, label_file, json_file in _get_cityscapes_files(str(images), str(annotations)):
        size = read_json(Path(json_file))
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
