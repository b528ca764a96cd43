"""Objects of a dataset that a detector will hardly find: more of them than it keeps, or too small ones."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from ..config.build import instantiate
from ..data.checks.findings import Findings
from ..data.mapper import test_size

__all__ = ["add_beyond_limits", "common_folder"]

ANCHORS = ("model.proposal_generator.anchor_generator", "model.anchor_generator")


def add_beyond_limits(findings: Findings, cfg: DictConfig, coco: Mapping[str, Any], folder: str) -> None:
    """Add crowded images, and objects that are small beside the anchors.

    Args:
        findings: of the split.
        cfg: the tree, its dataset resolved.
        coco: the clean content of the split, whose images have absolute file names.
        folder: that file names are relative to.
    """
    names = {image["id"]: os.path.relpath(image["file_name"], folder) for image in coco["images"]}
    objects = [annotation for annotation in coco["annotations"] if not annotation["iscrowd"]]
    limit = cfg.data.settings[cfg.data.name].detections_per_image
    counts = Counter(annotation["image_id"] for annotation in objects)
    findings.add(
        "crowded_image", *(f"{names[i]}: {count} objects" for i, count in counts.items() if count > limit)
    )
    anchor = _smallest_anchor(cfg)
    if anchor is None:
        return
    size = test_size(cfg.dataloader.test.mapper)
    scales = {image["id"]: _scale(image, *size) for image in coco["images"]}
    for annotation in objects:
        side = math.sqrt(annotation["bbox"][2] * annotation["bbox"][3])
        if 2 * side * scales[annotation["image_id"]] < anchor:
            findings.add("tiny_object", f"{side:.0f} pixels in {names[annotation['image_id']]}")


def common_folder(files: Iterable[str]) -> str:
    """The folder that all files share."""
    folders = {os.path.dirname(file) for file in files}
    return os.path.commonpath(folders) if folders else "/"


def _smallest_anchor(cfg: DictConfig) -> float | None:
    """The side of the smallest anchor, in pixels of the resized image; None for detectors without anchors."""
    node = next(filter(None, (OmegaConf.select(cfg, place) for place in ANCHORS)), None)
    if node is None:
        return None
    corners = torch.cat(list(instantiate(node).cell_anchors))
    return float((corners[:, 2:] - corners[:, :2]).prod(dim=1).sqrt().min())


def _scale(image: Mapping[str, Any], short_edge: int, max_size: int) -> float:
    """The factor by which an image is resized in evaluation."""
    short, long = sorted((image["width"], image["height"]))
    return float(min(short_edge / short, max_size / long))
