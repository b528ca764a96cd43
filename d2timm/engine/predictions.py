"""Predictions for a few images: ``predictions.png``, and ``samples.json`` for the page of a report."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from detectron2.data import MetadataCatalog
from detectron2.data.catalog import Metadata
from omegaconf import DictConfig
from torch import nn

from ..config.build import instantiate
from ..data.catalog import dataset_name
from ..data.datasets.panoptic import read_segments, read_semantic
from ..errors import ConfigError
from ..inference.predictor import on_cpu
from ..runs.samples import Sample, Samples
from ..utils.images import read_image
from ..utils.pillow import MAX_PIXELS
from .samples import make_sample

if TYPE_CHECKING:  # matplotlib, which it imports, is needed at the end of a run only
    from ..visualize.visualizer import DetectionVisualizer

__all__ = ["draw_predictions"]

logger = logging.getLogger(__name__)

SIDE = 480  # longer side of a picture, in pixels
COLUMNS = 4  # two pairs in a row
SCORE_THRESHOLD = 0.5  # of the detections that are drawn


def draw_predictions(
    dataloader: DictConfig, model: nn.Module, file: Path, images: int = 6, samples: Path | None = None
) -> None:
    """Draw validation images in pairs, two in a row: ground truth on the left, predictions on the right.

    The output of the model decides what both show: panoptic segments, semantic classes, or instances with
    their boxes, masks and keypoints.

    Args:
        dataloader: the node ``dataloader`` of the config.
        model: the detector, in eval mode.
        file: the PNG to write.
        images: number of images, evenly spaced in the validation set; all of a smaller set.
        samples: the run folder in which ``inference/samples.json`` gets the same images; None: it is not
            written.
    """
    from ..visualize.image_grid import stack_pictures
    from ..visualize.visualizer import DetectionVisualizer, write_picture

    mapper = instantiate(dataloader.test.mapper)
    dataset = instantiate(dataloader.test.dataset)
    metadata = _metadata(dataloader.evaluator)
    indices = np.linspace(0, len(dataset) - 1, min(images, len(dataset))).astype(int)
    pictures: list[Any] = []
    kept: list[Sample] = []
    for entry in (dataset[index] for index in indices):
        try:
            inputs = mapper(entry)
            image = read_image(entry["file_name"], "RGB", getattr(mapper, "max_pixels", MAX_PIXELS))
        except ConfigError as error:  # the evaluation has decided what to do about it
            logger.warning("An image is not drawn: %s", error)
            continue
        with torch.no_grad():
            output = on_cpu(model([inputs])[0])
        left, right = (DetectionVisualizer(image, metadata, SIDE / max(image.shape[:2])) for _ in range(2))
        _draw_ground_truth(left, entry, output)
        right.draw_output(output, SCORE_THRESHOLD)
        pictures += [left.output.get_image(), right.output.get_image()]
        if samples and (sample := make_sample(entry, image, output)):
            kept.append(sample)
    if pictures:
        write_picture(file, stack_pictures(pictures, COLUMNS))
    if samples and kept:
        Samples(list(metadata.get("thing_classes") or ()), kept).write(samples)
    drawn = len(pictures) // 2
    logger.info("Drew ground truth (left) and predictions (right) of %d images: %s", drawn, file)


def _metadata(evaluator: DictConfig) -> Metadata:
    """Class names of the evaluated dataset."""
    if "dataset_name" in evaluator:  # one of detectron2's evaluators
        return MetadataCatalog.get(instantiate(evaluator.dataset_name))
    return MetadataCatalog.get(dataset_name(evaluator.data, evaluator.split))


def _draw_ground_truth(
    visualizer: DetectionVisualizer, entry: Mapping[str, Any], output: Mapping[str, Any]
) -> None:
    """Draw the annotations of a dataset dict that correspond to the parts of a detector's output."""
    from ..visualize.visualizer import STUFF

    if "panoptic_seg" in output:
        segments = torch.from_numpy(read_segments(entry["pan_seg_file_name"]))
        visualizer.draw_panoptic_seg(segments, entry["segments_info"], **STUFF)
    elif "sem_seg" in output:
        visualizer.draw_sem_seg(read_semantic(entry), **STUFF)
    else:
        fields = {"pred_masks": "segmentation", "pred_keypoints": "keypoints"}
        hidden = {key for field, key in fields.items() if not output["instances"].has(field)}
        shown = [{k: v for k, v in thing.items() if k not in hidden} for thing in entry["annotations"]]
        visualizer.draw_dataset_dict({"annotations": shown})
