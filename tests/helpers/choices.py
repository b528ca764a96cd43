"""All combinations of detector, neck and ROI heads, and small configs of them."""

from __future__ import annotations

import copy
import functools
import itertools
from pathlib import Path
from typing import Any

from detectron2.config import LazyConfig
from omegaconf import DictConfig, OmegaConf

from d2timm.config.lazy import get_config
from d2timm.config.overrides import apply_overrides

COMMON = Path(__file__).parents[2] / "lazy_configs" / "common"
BOTTOM_UP = "model.backbone.bottom_up"


def options(group: str) -> list[str]:
    """The options of a group."""
    return sorted(path.stem for path in (COMMON / group).glob("*.py"))


#: Key -> a value that makes a detector fast, if its config has the key
SMALL = {
    f"{BOTTOM_UP}.model_name": "test_efficientnet",
    f"{BOTTOM_UP}.pretrained": False,
    "model.backbone.out_channels": 32,
    "model.backbone.num_layers": 2,
    "model.head.conv_dims": [32],
    "model.proposal_generator.batch_size_per_image": 16,
    "model.proposal_generator.pre_nms_topk": [20, 20],
    "model.proposal_generator.post_nms_topk": [10, 10],
    "model.roi_heads.batch_size_per_image": 16,
    "model.roi_heads.box_head.conv_dims": [16],
    "model.roi_heads.box_head.fc_dims": [16],
    "model.roi_heads.box_heads.0.conv_dims": [16],
    "model.roi_heads.box_heads.0.fc_dims": [16],
    "model.roi_heads.mask_head.conv_dims": [16, 16],
    "model.roi_heads.mask_heads.0.conv_dims": [16, 16],
    "model.roi_heads.mask_head.fc_dim": 16,
    "model.roi_heads.mask_head.point_fc_dim": 16,
    "model.roi_heads.keypoint_head.conv_dims": [16, 16],
    "model.sem_seg_head.conv_dims": 32,
}


@functools.cache
def recipe() -> DictConfig:
    """The recipe from which configs take everything outside the node ``model``."""
    cfg = get_config("mask_rcnn_timm.py")
    cfg.data.name = "shapes"
    cfg.train.device = "cpu"
    return cfg


@functools.cache
def node(group: str, option: str) -> Any:
    """The node of an option, shared by all callers."""
    return LazyConfig.load(str(COMMON / group / f"{option}.py"), group)


def compose(model: str, neck: str, roi_heads: str, *overrides: str) -> DictConfig:
    """The config that a recipe of these options assembles, made small; overrides come last."""
    cfg = copy.deepcopy(recipe())
    backbone = cfg.model.backbone.bottom_up
    cfg.model = node("model", model)
    cfg.model.backbone = node("neck", neck)
    cfg.model.backbone.bottom_up = backbone
    if node("roi_heads", roi_heads) is not None:
        cfg.model.roi_heads = node("roi_heads", roi_heads)
    for key, value in SMALL.items():
        if OmegaConf.select(cfg, key) not in (None, []):
            OmegaConf.update(cfg, key, value)
    return apply_overrides(cfg, overrides)


COMBINATIONS = list(itertools.product(*map(options, ("model", "neck", "roi_heads"))))
WITHOUT_ROI_HEADS = {"retinanet", "fcos", "semantic_fpn"}


def fits(model: str, neck: str, roi_heads: str) -> bool:
    """Whether the options are compatible."""
    if model in WITHOUT_ROI_HEADS:
        idle = model == "semantic_fpn" and neck == "fpn_p6p7"  # it does not use p6 and p7
        return roi_heads == "none" and not idle
    return roi_heads != "none" and (model != "panoptic_fpn" or node("roi_heads", roi_heads).mask_in_features)
