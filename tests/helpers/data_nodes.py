"""The ``data`` node of a config, as a plain mapping."""

from __future__ import annotations

from typing import Any

from d2timm.data.catalog import PATHS

NAMES = ("shapes", "coco_2017", "coco_2017_keypoints", "custom", "yolo", "voc_folder", "auto")


def data_node(**values: Any) -> dict[str, Any]:
    """A node with ``name=auto``, no paths and empty settings, except for the given values."""
    return {
        "name": "auto",
        **dict.fromkeys(PATHS),
        "root": None,
        "settings": dict.fromkeys(NAMES),
        **values,
    }
