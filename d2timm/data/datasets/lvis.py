"""LVIS v1 (https://www.lvisdataset.org): 1203 classes, many of them rare, in COCO's images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from detectron2.data.datasets import get_lvis_instances_meta

from ...errors import ConfigError
from ..coco_columns import open_columns
from ..columns import Columns
from ..paths import Split, published
from .coco import CocoDataset

__all__ = ["LvisDataset"]


class LvisDataset(CocoDataset):
    """LVIS v1 in its published layout; the images belong to COCO 2017."""

    name = "lvis_v1"

    def files(self, split: str) -> Split:
        """The files of a split, whose images come from both splits of COCO."""
        return Split(published("lvis") / f"lvis_v1_{split}.json", published("coco"))

    def classes(self) -> list[str]:
        """Names of the 1203 classes."""
        return list(get_lvis_instances_meta(self.name)["thing_classes"])

    def columns(self, files: Split) -> Columns:
        """The annotations of a split, read without the package lvis, which needs NumPy 1."""
        columns = open_columns(files.json, lvis=True)
        ids = [category["id"] for category in columns.categories]
        if ids != list(range(1, len(self.classes()) + 1)):
            raise ConfigError(f"{files.json} does not have the {len(self.classes())} categories of LVIS v1")
        return columns

    def evaluators(
        self, name: str, tasks: Sequence[str], folder: str, detections_per_image: int = 0
    ) -> list[Any]:
        """LVIS's metrics."""
        from ...evaluation.coco import LvisEvaluator

        return [LvisEvaluator(name, tasks, output_dir=folder)]
