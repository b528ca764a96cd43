"""``predictions.png``: ground truth beside predictions, for a look at what a number hides."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.data import MetadataCatalog
from detectron2.data.catalog import Metadata
from omegaconf import DictConfig
from torch import nn

from .build import instantiate
from .data.catalog import dataset_name
from .data.panoptic import read_segments, read_semantic
from .drawing import STUFF, Canvas, write_picture
from .images import Picture, read_image
from .predictor import on_cpu

__all__ = ["draw_predictions"]

logger = logging.getLogger(__name__)

SIDE = 480  # pixels of a picture's longer side
GAP = 8
COLUMNS = 4  # two pairs
CONFIDENT = 0.5  # weaker detections are not drawn


def draw_predictions(cfg: DictConfig, model: nn.Module, file: Path, images: int = 6) -> None:
    """Draw validation images in pairs, two a row: ground truth left, predictions right.

    What is drawn goes by what the model gives: panoptic segments, or semantic classes, or instances with
    their boxes, masks and keypoints.

    Args:
        cfg: the tree.
        model: a detector in eval mode.
        file: the PNG to write.
        images: how many, evenly taken from the set; fewer where it has fewer.
    """
    mapper = instantiate(cfg.dataloader.test.mapper)
    dataset = instantiate(cfg.dataloader.test.dataset)
    metadata = _metadata(cfg)
    places = np.linspace(0, len(dataset) - 1, min(images, len(dataset))).astype(int)
    pictures = []
    for entry in (dataset[place] for place in places):
        image = read_image(entry["file_name"], "RGB")
        with torch.no_grad():
            output = on_cpu(model([mapper(entry)])[0])
        truth, found = (Canvas(image, metadata, SIDE / max(image.shape[:2])) for _ in range(2))
        _draw_truth(truth, entry, output)
        found.draw_output(output, CONFIDENT)
        pictures += [truth.output.get_image(), found.output.get_image()]
    write_picture(file, _sheet(pictures))
    logger.info("Ground truth (left) and predictions (right) of %d images: %s", len(places), file)


def _metadata(cfg: DictConfig) -> Metadata:
    """Names of the classes of the evaluated set."""
    evaluator = cfg.dataloader.evaluator
    if "dataset_name" in evaluator:  # one of detectron2's
        return MetadataCatalog.get(instantiate(evaluator.dataset_name))
    return MetadataCatalog.get(dataset_name(evaluator.data, evaluator.split))


def _draw_truth(canvas: Canvas, entry: Mapping[str, Any], output: Mapping[str, Any]) -> None:
    """Draw of a dataset dict what such an output is compared with, and nothing on top of that."""
    if "panoptic_seg" in output:
        segments = torch.from_numpy(read_segments(entry["pan_seg_file_name"]))
        canvas.draw_panoptic_seg(segments, entry["segments_info"], **STUFF)
    elif "sem_seg" in output:
        canvas.draw_sem_seg(read_semantic(entry), **STUFF)
    else:
        parts = {"pred_masks": "segmentation", "pred_keypoints": "keypoints"}
        unseen = {key for field, key in parts.items() if not output["instances"].has(field)}
        seen = [{k: v for k, v in thing.items() if k not in unseen} for thing in entry["annotations"]]
        canvas.draw_dataset_dict({"annotations": seen})


def _sheet(pictures: Sequence[Picture]) -> Picture:
    """Pictures in rows on white; columns as wide as the widest, each row as high as its highest."""
    columns = min(COLUMNS, len(pictures))
    rows = [pictures[start : start + columns] for start in range(0, len(pictures), columns)]
    width = GAP + max(picture.shape[1] for picture in pictures)
    heights = [GAP + max(picture.shape[0] for picture in row) for row in rows]
    sheet = np.full((sum(heights), columns * width, 3), 255, np.uint8)
    for row, height, bottom in zip(rows, heights, np.cumsum(heights), strict=True):
        for column, picture in enumerate(row):
            top, left = bottom - height, column * width
            sheet[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    return sheet
