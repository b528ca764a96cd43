"""Which sets are on this machine: a question that is asked before torch and detectron2 are imported."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

__all__ = ["COCO", "SPLITS", "Split", "coco_2017", "found"]

SPLITS = ("train", "val")
COCO = "coco_2017"


@dataclass(frozen=True)
class Split:
    """The annotations and images of a training or validation set."""

    json: Path
    images: Path


def found() -> str:
    """The set that is there without being asked for: ``coco_2017`` or the embedded ``shapes``."""
    return COCO if all(coco_2017(split).json.is_file() for split in SPLITS) else "shapes"


def coco_2017(split: str) -> Split:
    """Where detectron2 looks for COCO 2017, but asked when needed and not on import."""
    root = Path(os.environ.get("DETECTRON2_DATASETS", "datasets"), "coco").expanduser()
    return Split(root / "annotations" / f"instances_{split}2017.json", root / f"{split}2017")
