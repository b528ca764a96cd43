"""Necks and heads of mmdet 2: FPN, RPN, box heads and mask heads, single or a cascade of three.

The names follow mmdet 2.11, as in https://github.com/SwinTransformer/Swin-Transformer-Object-Detection
(mmdet/models: necks/fpn.py, dense_heads/rpn_head.py, roi_heads/bbox_heads/convfc_bbox_head.py,
roi_heads/mask_heads/fcn_mask_head.py). All other conventions agree with detectron2's: classes are in the
order of COCO's ids with the background last, the four deltas of a class are adjacent rows, anchors have the
aspect ratios 1/2, 1 and 2 and are centred on the corners of cells, RoIAlign is aligned, and regions are
flattened as (C, 7, 7).
"""

from __future__ import annotations

import re

import torch
from torch import Tensor

from .layout import Adapt, Rule, renamed
from .target import Target

__all__ = ["ADAPT", "HEADS"]

#: Factors of a stage's deltas (``target_stds``); detectron2 divides by weights instead
STDS = ((0.1, 0.1, 0.2, 0.2), (0.05, 0.05, 0.1, 0.1), (0.033, 0.033, 0.067, 0.067))
PARTS = {"conv": "", "bn": ".norm", "gn": ".norm"}  # parts of mmcv's ConvModule
CONV = r"(conv|bn|gn)\.(.+)"


def _level(match: re.Match[str], target: Target) -> str:
    """Rename a convolution of FPN: mmdet counts from 0, detectron2 uses log2 of the stride."""
    kind = {"lateral_convs": "lateral", "fpn_convs": "output"}[match[1]]
    return f"backbone.fpn_{kind}{int(match[2]) + 2}{PARTS[match[3]]}.{match[4]}"


def _box_conv(match: re.Match[str], target: Target) -> str:
    return f"roi_heads.box_head{match[1]}.conv{int(match[2]) + 1}{PARTS[match[3]]}.{match[4]}"


def _box_fc(match: re.Match[str], target: Target) -> str:
    return f"roi_heads.box_head{match[1]}.fc{int(match[2]) + 1}.{match[3]}"


def _mask_conv(match: re.Match[str], target: Target) -> str:
    return f"roi_heads.mask_head{match[1]}.mask_fcn{int(match[2]) + 1}{PARTS[match[3]]}.{match[4]}"


BOX, MASK = (rf"roi_head\.{kind}_head((?:\.\d+)?)\." for kind in ("bbox", "mask"))  # the group is the stage
HEADS: tuple[Rule, ...] = (
    (rf"neck\.(lateral_convs|fpn_convs)\.(\d+)\.{CONV}", _level),
    (r"rpn_head\.rpn_conv\.(.+)", renamed(r"proposal_generator.rpn_head.conv.\1")),
    (r"rpn_head\.rpn_cls\.(.+)", renamed(r"proposal_generator.rpn_head.objectness_logits.\1")),
    (r"rpn_head\.rpn_reg\.(.+)", renamed(r"proposal_generator.rpn_head.anchor_deltas.\1")),
    (rf"{BOX}shared_convs\.(\d+)\.{CONV}", _box_conv),
    (rf"{BOX}shared_fcs\.(\d+)\.(.+)", _box_fc),
    (rf"{BOX}fc_cls\.(.+)", renamed(r"roi_heads.box_predictor\1.cls_score.\2")),
    (rf"{BOX}fc_reg\.(.+)", renamed(r"roi_heads.box_predictor\1.bbox_pred.\2")),
    (rf"{MASK}convs\.(\d+)\.{CONV}", _mask_conv),
    (rf"{MASK}upsample\.(.+)", renamed(r"roi_heads.mask_head\1.deconv.\2")),
    (rf"{MASK}conv_logits\.(.+)", renamed(r"roi_heads.mask_head\1.predictor.\2")),
)


def _rescale(name: str, values: Tensor, target: Target) -> tuple[Tensor, str]:
    """Scale the rows of the box regression for the weights by which the target divides deltas."""
    stage = next((int(part) for part in name.split(".") if part.isdigit()), 0)
    pairs = zip(STDS[stage], target.delta_weights(stage), strict=True)
    factors = torch.tensor([std * weight for std, weight in pairs], dtype=values.dtype)
    if len(values) % 4 or torch.allclose(factors, torch.ones(4, dtype=values.dtype), rtol=0, atol=1e-6):
        return values, ""
    rows = factors.repeat(len(values) // 4)
    note = "deltas scaled by " + ", ".join(f"{factor:.3g}" for factor in factors)
    return values * rows.view(-1, *[1] * (values.dim() - 1)), note


ADAPT: dict[str, Adapt] = {r"roi_heads\.box_predictor\.(\d+\.)?bbox_pred\..+": _rescale}
