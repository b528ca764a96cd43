"""Where published sets lie on this machine, which is asked before torch and detectron2 are imported."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

__all__ = ["COCO", "SPLITS", "Split", "coco_2017", "default_dataset", "published"]

SPLITS = ("train", "val")
COCO = "coco_2017"


@dataclass(frozen=True)
class Split:
    """The files of a training or validation set in COCO's formats.

    Attributes:
        json: annotations of objects.
        images: the folder of the images.
        panoptic_json: segments of the panoptic maps, where there are any.
        panoptic: the folder of the panoptic maps.
    """

    json: Path
    images: Path
    panoptic_json: Path | None = None
    panoptic: Path | None = None


def default_dataset() -> str:
    """The set that is there without being asked for: ``coco_2017`` or the embedded ``shapes``."""
    return COCO if all(coco_2017(split).json.is_file() for split in SPLITS) else "shapes"


def published(*folders: str) -> Path:
    """A folder below ``$DETECTRON2_DATASETS``, or ``./datasets``; looked up when needed and not on import."""
    return Path(os.environ.get("DETECTRON2_DATASETS", "datasets"), *folders).expanduser()


def coco_2017(split: str, kind: str = "instances") -> Split:
    """COCO 2017 in its published layout.

    Args:
        split: ``train`` or ``val``.
        kind: of annotations: ``instances`` or ``person_keypoints``.
    """
    root = published("coco")
    annotations = root / "annotations"
    return Split(
        annotations / f"{kind}_{split}2017.json",
        root / f"{split}2017",
        annotations / f"panoptic_{split}2017.json",
        root / f"panoptic_{split}2017",
    )
