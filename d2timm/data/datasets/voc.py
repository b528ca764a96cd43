"""Pascal VOC (https://www.robots.ox.ac.uk/~vgg/projects/pascal/VOC): boxes of 20 classes.

As usual, the training split is trainval of 2007 and 2012, the validation split is test of 2007.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from detectron2.data.datasets import load_voc_instances
from detectron2.data.datasets.pascal_voc import CLASS_NAMES

from ...errors import ConfigError
from ..paths import PUBLISHED_HINT, published
from .base import Dataset, register

__all__ = ["PascalVocDataset"]

#: Split -> years and their image lists
PARTS = {"train": ((2007, "trainval"), (2012, "trainval")), "val": ((2007, "test"),)}


class PascalVocDataset(Dataset):
    """Pascal VOC 2007 and 2012 in their published layout: ``VOC2007`` and ``VOC2012``."""

    name = "pascal_voc"
    annotated_tasks = ("bbox",)

    def classes(self) -> list[str]:
        """Names of the 20 classes."""
        return list(CLASS_NAMES)

    def check(self, split: str, tasks: Sequence[str]) -> str:
        """Check that image lists, images and annotations exist, and describe the split in one line."""
        for year, part in PARTS[split]:
            root = _root(year)
            image_list = root / "ImageSets" / "Main" / f"{part}.txt"
            if not image_list.is_file():
                raise ConfigError(f"data.name={self.name}: {image_list}: no such file{PUBLISHED_HINT}")
            names = set(image_list.read_text().split())
            for folder, suffix in (("Annotations", ".xml"), ("JPEGImages", ".jpg")):
                existing = {file.stem for file in (root / folder).glob(f"*{suffix}")}
                if missing := names - existing:
                    raise ConfigError(
                        f"data.name={self.name}: {len(missing)} of {len(names)} files listed in {image_list} "
                        f"are missing, such as {root / folder / min(missing)}{suffix}"
                    )
        parts = " and ".join(f"{_root(year)} {part}" for year, part in PARTS[split])
        return f"{self.name} {split}: {parts}"

    def register(self, split: str, tasks: Sequence[str]) -> str:
        """Register a split with detectron2, unless it is registered, and return its name in the catalogs."""
        parts = [(str(_root(year)), part) for year, part in PARTS[split]]
        year, part = PARTS[split][0]
        # detectron2's evaluator reads these
        location = {"dirname": str(_root(year)), "year": year, "split": part}
        name = f"{self.name}_{split}:{_root(year)}"
        return register(name, partial(_load, parts), thing_classes=self.classes(), **location)

    def evaluators(
        self, name: str, tasks: Sequence[str], folder: str, detections_per_image: int = 0
    ) -> list[Any]:
        """VOC's own metrics, at IoU 0.5 to 0.95."""
        from detectron2.evaluation import PascalVOCDetectionEvaluator

        return [PascalVOCDetectionEvaluator(name)]


def _root(year: int) -> Path:
    return published(f"VOC{year}")


def _load(parts: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
    return [entry for root, part in parts for entry in load_voc_instances(root, part, CLASS_NAMES)]
