"""Mask R-CNN with ResNet-50 and FPN from detectron2 alone and from this project, with the same weights."""

from __future__ import annotations

import copy
import re
from typing import Any

import numpy as np
import torch
from detectron2 import model_zoo
from detectron2.config import instantiate
from detectron2.structures import Boxes, Instances, PolygonMasks
from torch import Tensor, nn

from d2timm import get_config
from d2timm.config.build import build_model

RECIPE = "mask_rcnn_resnet50_1x.py"
CLASSES = 80


def config(device: str) -> Any:
    """The recipe of detectron2's baseline, without files."""
    cfg = get_config(RECIPE)
    cfg.data.name, cfg.train.device = "coco_2017", device
    cfg.model.backbone.bottom_up.pretrained = False
    return cfg


def both(device: str) -> tuple[Any, Any, nn.Module]:
    """The recipe's config, its detector, and detectron2's own with the same weights."""
    torch.manual_seed(0)
    cfg = config(device)
    ours = build_model(cfg)
    node = copy.deepcopy(model_zoo.get_config("common/models/mask_rcnn_fpn.py").model)
    node.backbone.bottom_up.stem.norm = node.backbone.bottom_up.stages.norm = "FrozenBN"
    node.backbone.bottom_up.stages.stride_in_1x1 = False  # as in torchvision and timm
    native: nn.Module = instantiate(node).to(device)
    native.load_state_dict({_name(name): value for name, value in ours.state_dict().items() if used(name)})
    for buffer in ("pixel_mean", "pixel_std"):
        getattr(native, buffer).copy_(getattr(ours, buffer))
    return cfg, ours, native


def used(name: str) -> bool:
    """Whether detectron2's ResNet has a counterpart."""
    return not name.endswith("num_batches_tracked")


def _name(name: str) -> str:
    """detectron2's name of a weight."""
    name = name.replace("bottom_up.model.", "bottom_up.")
    name = re.sub(r"bottom_up\.(conv1)", r"bottom_up.stem.\1", name)
    name = name.replace("bottom_up.bn1", "bottom_up.stem.conv1.norm")
    name = re.sub(r"layer(\d)", lambda stage: f"res{int(stage[1]) + 1}", name)
    name = re.sub(r"\.bn(\d)", r".conv\1.norm", name)
    return name.replace("downsample.0", "shortcut").replace("downsample.1", "shortcut.norm")


def batch(
    images: int, height: int, width: int, objects: int = 8, classes: int = CLASSES
) -> list[dict[str, Any]]:
    """Random images with boxes and rectangular masks, of 1/32 to 1/4 of the shorter side."""
    side = min(height, width)
    random = np.random.RandomState(0)
    entries = []
    for _ in range(images):
        low = random.randint(0, (width - side // 4, height - side // 4), (objects, 2))
        sizes = random.randint(side // 32, side // 4, (objects, 2))
        boxes = np.concatenate([low, low + sizes], 1).astype(np.float32)
        corners = [np.float64([x0, y0, x1, y0, x1, y1, x0, y1]) for x0, y0, x1, y1 in boxes]
        instances = Instances((height, width), gt_boxes=Boxes(Tensor(boxes)))
        instances.gt_classes = torch.tensor(random.randint(0, classes, objects))
        instances.gt_masks = PolygonMasks([[polygon] for polygon in corners])
        pixels = torch.tensor(random.randint(0, 255, (3, height, width)), dtype=torch.uint8)
        entries.append({"image": pixels, "instances": instances, "height": height, "width": width})
    return entries
