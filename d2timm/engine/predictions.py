"""``predictions.png``: ground truth beside predictions, for a look at what a number hides."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.data import MetadataCatalog
from detectron2.data.catalog import Metadata
from omegaconf import DictConfig
from torch import nn

from ..config.build import instantiate
from ..data.catalog import dataset_name
from ..data.datasets.panoptic import read_segments, read_semantic
from ..inference.predictor import on_cpu
from ..utils.images import read_image
from ..visualize.image_grid import stack_pictures
from ..visualize.visualizer import STUFF, DetectionVisualizer, write_picture

__all__ = ["draw_predictions"]

logger = logging.getLogger(__name__)

SIDE = 480  # pixels of a picture's longer side
COLUMNS = 4  # two pairs
CONFIDENT = 0.5  # weaker detections are not drawn


def draw_predictions(dataloader: DictConfig, model: nn.Module, file: Path, images: int = 6) -> None:
    """Draw validation images in pairs, two a row: ground truth left, predictions right.

    What is drawn goes by what the model gives: panoptic segments, or semantic classes, or instances with
    their boxes, masks and keypoints.

    Args:
        dataloader: the node ``dataloader`` of the config.
        model: a detector in eval mode.
        file: the PNG to write.
        images: how many, evenly taken from the set; fewer where it has fewer.
    """
    mapper = instantiate(dataloader.test.mapper)
    dataset = instantiate(dataloader.test.dataset)
    metadata = _metadata(dataloader.evaluator)
    places = np.linspace(0, len(dataset) - 1, min(images, len(dataset))).astype(int)
    pictures = []
    for entry in (dataset[place] for place in places):
        image = read_image(entry["file_name"], "RGB")
        with torch.no_grad():
            output = on_cpu(model([mapper(entry)])[0])
        truth, found = (DetectionVisualizer(image, metadata, SIDE / max(image.shape[:2])) for _ in range(2))
        _draw_truth(truth, entry, output)
        found.draw_output(output, CONFIDENT)
        pictures += [truth.output.get_image(), found.output.get_image()]
    write_picture(file, stack_pictures(pictures, COLUMNS))
    logger.info("Ground truth (left) and predictions (right) of %d images: %s", len(places), file)


def _metadata(evaluator: DictConfig) -> Metadata:
    """Names of the classes of the evaluated dataset."""
    if "dataset_name" in evaluator:  # one of detectron2's
        return MetadataCatalog.get(instantiate(evaluator.dataset_name))
    return MetadataCatalog.get(dataset_name(evaluator.data, evaluator.split))


def _draw_truth(canvas: DetectionVisualizer, entry: Mapping[str, Any], output: Mapping[str, Any]) -> None:
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
