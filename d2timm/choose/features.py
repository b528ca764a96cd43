"""Frozen features of a backbone for the objects of a dataset, in a process of its own.

``python -m d2timm.choose.features`` reads ``tree``, ``images`` and ``file`` as JSON from standard input, and
writes the score of the features to the file.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn
from torchvision.ops import box_iou, roi_align

from ..config.build import instantiate, resolve_dataset
from ..utils.files import atomic_write
from ..utils.quiet import silence
from .logme import log_evidence

__all__ = ["score_features"]

OBJECTS = 300  # of the images, that are pooled
BACKGROUND = -1  # the class of boxes without an object
LOW = 0.3  # overlap with any object below which a box is background
CELLS = 2  # per side, that are pooled for a box on a level


def score_features(cfg: DictConfig, images: int) -> float:
    """How well the classes of objects, and background, can be predicted from a backbone's features.

    The features of a box are pooled from all levels of the common pyramid and concatenated.

    Args:
        cfg: the tree, its dataset resolved.
        images: most images that are looked at, evenly spaced in the training set.
    """
    backbone: Any = instantiate(cfg.model.backbone.bottom_up).to(cfg.train.device).eval()
    model = OmegaConf.to_container(cfg.model, resolve=False)
    statistics = [_statistics(cfg, model, name) for name in ("pixel_mean", "pixel_std")]
    mapper = instantiate(cfg.dataloader.train.mapper)
    mapper.augmentations = instantiate(cfg.dataloader.test.mapper).augmentations
    dataset = instantiate(cfg.dataloader.train.dataset)
    chosen = np.linspace(0, len(dataset) - 1, min(images, len(dataset))).astype(int)
    generator = torch.Generator().manual_seed(0)
    features: list[Tensor] = []
    labels: list[int] = []
    for index in chosen:
        entry = mapper(dataset[index])
        if entry is None or len(labels) >= 2 * OBJECTS:
            continue
        boxes = entry["instances"].gt_boxes.tensor
        background = _background(boxes, tuple(entry["image"].shape[-2:]), generator)
        image = (entry["image"].float() - statistics[0]) / statistics[1]
        features.append(_pool(backbone, image.to(cfg.train.device), torch.cat([boxes, background])))
        labels += [*entry["instances"].gt_classes.tolist(), *[BACKGROUND] * len(background)]
    return log_evidence(torch.cat(features).double().cpu().numpy(), np.asarray(labels))


def _statistics(cfg: DictConfig, model: Any, name: str) -> Tensor:
    values = instantiate(cfg.model[name]) if isinstance(model[name], dict) else cfg.model[name]
    return torch.tensor([*values], dtype=torch.float32).view(-1, 1, 1)


def _background(boxes: Tensor, size: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """As many boxes without an object as there are objects, of the same sizes, where there is room."""
    height, width = size
    sides = boxes[:, 2:] - boxes[:, :2]
    corners = torch.rand(len(boxes), 2, generator=generator) * (torch.tensor([width, height]) - sides)
    others = torch.cat([corners, corners + sides], 1)
    if not len(boxes):
        return others
    return others[box_iou(others, boxes).max(dim=1).values < LOW]


@torch.no_grad()
def _pool(backbone: nn.Module, image: Tensor, boxes: Tensor) -> Tensor:
    """The features of boxes (N, 4) of an image (C, H, W), from all levels: (N, sum of the channels)."""
    levels: dict[str, Tensor] = backbone(image[None])
    pooled = []
    for maps in levels.values():
        scale = maps.shape[-1] / image.shape[-1]
        cells = roi_align(maps.float(), [boxes.to(maps)], CELLS, scale, aligned=True)
        pooled.append(cells.mean(dim=(2, 3)))
    return torch.cat(pooled, 1)


def main(task: dict[str, Any]) -> None:
    """Score the features of the backbone of a config, and write the score to a file."""
    cfg = OmegaConf.create(task["tree"], flags={"allow_objects": True})
    resolve_dataset(cfg)
    score = score_features(cfg, task["images"])
    with atomic_write(Path(task["file"])) as partial:
        partial.write_text(json.dumps({"score": score}))


def _arguments(arguments: Sequence[str]) -> dict[str, Any]:
    if arguments:
        raise SystemExit(__doc__)
    silence()
    content: dict[str, Any] = json.load(sys.stdin)
    return content


if __name__ == "__main__":
    main(_arguments(sys.argv[1:]))
