"""``predictions.png``: ground truth beside detections, for a look at what a number hides."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from detectron2.data import MetadataCatalog, detection_utils
from detectron2.utils.visualizer import ColorMode, Visualizer
from einops import rearrange
from numpy.typing import NDArray
from omegaconf import DictConfig
from torch import nn

from .build import instantiate
from .files import whole

__all__ = ["draw_predictions"]

logger = logging.getLogger(__name__)

Picture = NDArray[np.uint8]  # (H, W, 3) RGB

SIDE = 480  # pixels of a tile's longer side
GAP = 8
COLUMNS = 4  # two pairs
CONFIDENT = 0.5  # weaker detections are not drawn


def draw_predictions(cfg: DictConfig, model: nn.Module, file: Path, images: int = 6) -> None:
    """Draw validation images in pairs, two a row: ground truth left, detections right.

    Args:
        cfg: the tree.
        model: a detector in eval mode.
        file: the PNG to write.
        images: how many, evenly taken from the set; fewer where it has fewer.
    """
    mapper = instantiate(cfg.dataloader.test.mapper)
    dataset = instantiate(cfg.dataloader.test.dataset)
    metadata = MetadataCatalog.get(instantiate(cfg.dataloader.evaluator.dataset_name))
    places = np.linspace(0, len(dataset) - 1, min(images, len(dataset))).astype(int)
    tiles = []
    for entry in (dataset[place] for place in places):
        image = detection_utils.read_image(entry["file_name"], "RGB")
        with torch.no_grad():
            instances = model([mapper(entry)])[0]["instances"].to("cpu")
        scale = SIDE / max(image.shape[:2])
        truth = _canvas(image, metadata, scale).draw_dataset_dict(entry)
        confident = instances[instances.scores >= CONFIDENT]
        found = _canvas(image, metadata, scale).draw_instance_predictions(confident)
        tiles += [_tile(truth.get_image()), _tile(found.get_image())]
    if len(tiles) % COLUMNS:
        tiles += [np.full_like(tiles[0], 255)] * (COLUMNS - len(tiles) % COLUMNS)
    sheet = rearrange(np.stack(tiles), "(rows cols) h w c -> (rows h) (cols w) c", cols=COLUMNS)
    png = cv2.imencode(".png", cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))[1]
    with whole(file) as partial:
        partial.write_bytes(png.tobytes())
    logger.info("Ground truth (left) and detections (right) of %d images: %s", len(places), file)


def _canvas(image: Picture, metadata: Any, scale: float) -> Visualizer:
    return Visualizer(image, metadata, scale=scale, instance_mode=ColorMode.IMAGE)


def _tile(picture: Picture) -> Picture:
    """A picture in the corner of a white square of one size for all."""
    tile = np.full((SIDE + GAP, SIDE + GAP, 3), 255, np.uint8)
    height, width = min(picture.shape[0], SIDE), min(picture.shape[1], SIDE)
    tile[:height, :width] = picture[:height, :width]
    return tile
