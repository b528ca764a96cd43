"""Objects of a dataset that a detector will hardly find: more of them than it keeps, or too small ones."""

from __future__ import annotations

import os
from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf

from ..config.build import instantiate
from ..data.checks.findings import Findings
from ..data.columns import Columns
from ..data.mapper import largest_size

__all__ = ["add_beyond_limits", "common_folder"]

ANCHORS = ("model.proposal_generator.anchor_generator", "model.anchor_generator")


def add_beyond_limits(findings: Findings, cfg: DictConfig, columns: Columns, folder: str) -> None:
    """Add crowded images, and objects that are small beside the anchors.

    Args:
        findings: of the split.
        cfg: the tree, its dataset resolved.
        columns: the clean annotations of the split, whose images have absolute file names.
        folder: that file names are relative to.
    """

    def name(image: int) -> str:
        return os.path.relpath(columns.names[image], folder)

    objects, images = ~columns.crowds, columns.images_of_objects
    counts = np.bincount(images[objects], minlength=len(columns))
    limit = cfg.data.settings[cfg.data.name].detections_per_image
    crowded = np.flatnonzero(counts > limit).tolist()
    findings.add_first("crowded_image", len(crowded), (f"{name(i)}: {counts[i]} objects" for i in crowded))
    anchor = _smallest_anchor(cfg)
    if anchor is None:
        return
    sides = np.sqrt(columns.boxes[:, 2:].prod(axis=1))
    scales = _scales(columns, *largest_size(cfg.dataloader.test.mapper))
    tiny = np.flatnonzero(objects & (2 * sides * scales[images] < anchor))
    samples = (f"{sides[number]:.0f} pixels in {name(int(images[number]))}" for number in tiny)
    findings.add_first("tiny_object", len(tiny), samples)


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


def _scales(columns: Columns, short_edge: int, max_size: int) -> NDArray[np.float64]:
    """The factor by which each image is resized in evaluation, (N)."""
    short, long = (side(columns.heights, columns.widths) for side in (np.minimum, np.maximum))
    return np.asarray(np.minimum(short_edge / short, max_size / long))
