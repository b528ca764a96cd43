"""Paths of published datasets on this machine; this module needs neither torch nor detectron2."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

__all__ = ["COCO", "PUBLISHED_HINT", "SPLITS", "Split", "coco_2017", "default_dataset", "published"]

SPLITS = ("train", "val")
COCO = "coco_2017"
#: The end of an error message about a missing file of a published dataset
PUBLISHED_HINT = "; published datasets are expected in $DETECTRON2_DATASETS, by default ./datasets"


@dataclass(frozen=True)
class Split:
    """The files of a training or validation split in COCO's formats.

    Attributes:
        json: the object annotations.
        images: the folder of the images.
        panoptic_json: the segments of the panoptic maps; None if there are no maps.
        panoptic: the folder of the panoptic maps; None if there are no maps.
    """

    json: Path
    images: Path
    panoptic_json: Path | None = None
    panoptic: Path | None = None


def default_dataset() -> str:
    """The dataset for ``data.name=auto``: ``coco_2017`` if it is installed, else the embedded ``shapes``."""
    return COCO if all(coco_2017(split).json.is_file() for split in SPLITS) else "shapes"


def published(*folders: str) -> Path:
    """A path in ``$DETECTRON2_DATASETS``, by default ``./datasets``; the variable is read at each call."""
    return Path(os.environ.get("DETECTRON2_DATASETS", "datasets"), *folders).expanduser()


def coco_2017(split: str, kind: str = "instances") -> Split:
    """The files of COCO 2017 in its published layout.

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
