"""LVIS v1 (https://www.lvisdataset.org): 1203 classes, many of them rare, in COCO's images."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from detectron2.data import MetadataCatalog
from detectron2.data.datasets import get_lvis_instances_meta
from detectron2.structures import BoxMode

from ...utils.json_file import read_json
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

    def load(self, split: str, name: str, tasks: Sequence[str]) -> list[dict[str, Any]]:
        """Read a split into detectron2's format, without the package lvis, which needs NumPy 1."""
        files, classes = self.files(split), len(self.classes())
        # category ids of LVIS start at 1 and have no gaps
        MetadataCatalog.get(name).thing_dataset_id_to_contiguous_id = {i + 1: i for i in range(classes)}
        lvis = read_json(files.json)
        objects = defaultdict(list)
        for annotation in lvis["annotations"]:
            objects[annotation["image_id"]].append(
                {
                    "bbox": annotation["bbox"],
                    "bbox_mode": BoxMode.XYWH_ABS,
                    "category_id": annotation["category_id"] - 1,
                    "segmentation": annotation["segmentation"],
                }
            )
        return [
            {
                # a URL such as .../train2017/000000391895.jpg
                "file_name": str(files.images.joinpath(*image["coco_url"].split("/")[-2:])),
                "image_id": image["id"],
                "height": image["height"],
                "width": image["width"],
                "annotations": objects[image["id"]],
            }
            for image in lvis["images"]
        ]

    def evaluators(
        self, name: str, tasks: Sequence[str], folder: str, detections_per_image: int = 0
    ) -> list[Any]:
        """LVIS's metrics."""
        from ...evaluation.coco import LvisEvaluator

        return [LvisEvaluator(name, tasks, output_dir=folder)]
