"""Pascal VOC (https://www.robots.ox.ac.uk/~vgg/projects/pascal/VOC): 20 classes, boxes.

Trained on the trainval sets of 2007 and 2012, evaluated on the test set of 2007, as is usual.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from detectron2.data.datasets import load_voc_instances
from detectron2.data.datasets.pascal_voc import CLASS_NAMES

from ...errors import ConfigError
from ..paths import published
from .base import Dataset, register
from .coco import BELOW

__all__ = ["PascalVoc"]

#: Split -> years and their lists of images
PARTS = {"train": ((2007, "trainval"), (2012, "trainval")), "val": ((2007, "test"),)}


class PascalVoc(Dataset):
    """Pascal VOC 2007 and 2012 in their published layout: ``VOC2007`` and ``VOC2012``."""

    name = "pascal_voc"
    annotated_tasks = ("bbox",)

    def classes(self) -> list[str]:
        """Names of the 20 classes."""
        return list(CLASS_NAMES)

    def check(self, split: str, tasks: Sequence[str]) -> str:
        """Make sure that the lists of images, the images and their annotations are there."""
        for year, part in PARTS[split]:
            root = _root(year)
            listed = root / "ImageSets" / "Main" / f"{part}.txt"
            if not listed.is_file():
                raise ConfigError(f"data.name={self.name}: {listed} is not there{BELOW}")
            names = set(listed.read_text().split())
            for folder, suffix in (("Annotations", ".xml"), ("JPEGImages", ".jpg")):
                there = {file.stem for file in (root / folder).glob(f"*{suffix}")}
                if absent := names - there:
                    raise ConfigError(
                        f"data.name={self.name}: {len(absent)} of {len(names)} files that {listed} names are "
                        f"not there, such as {root / folder / min(absent)}{suffix}"
                    )
        told = " and ".join(f"{_root(year)} {part}" for year, part in PARTS[split])
        return f"{self.name} {split}: {told}"

    def register(self, split: str, tasks: Sequence[str]) -> str:
        """The split's name in detectron2's catalogues."""
        parts = [(str(_root(year)), part) for year, part in PARTS[split]]
        year, part = PARTS[split][0]
        # what detectron2's evaluator asks
        where = {"dirname": str(_root(year)), "year": year, "split": part}
        name = f"{self.name}_{split}:{_root(year)}"
        return register(name, partial(_load, parts), thing_classes=self.classes(), **where)

    def evaluators(self, name: str, tasks: Sequence[str], folder: str) -> list[Any]:
        """VOC's own numbers, over IoU 0.5 to 0.95."""
        from detectron2.evaluation import PascalVOCDetectionEvaluator

        return [PascalVOCDetectionEvaluator(name)]


def _root(year: int) -> Path:
    return published(f"VOC{year}")


def _load(parts: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
    return [entry for root, part in parts for entry in load_voc_instances(root, part, CLASS_NAMES)]
