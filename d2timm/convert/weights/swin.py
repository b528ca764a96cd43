"""Swin Transformer in mmdet (https://github.com/SwinTransformer/Swin-Transformer-Object-Detection).

The names follow mmdet/models/backbones/swin_transformer.py. Queries, keys and values, the four
merged neighbours, and the tables of relative positions have the same order as in timm.
"""

from __future__ import annotations

import re

from timm.layers import resize_rel_pos_bias_table
from timm.models.swin_transformer import SwinTransformerBlock
from torch import Tensor

from . import mmdet
from .layout import Layout, norms_of_all, renamed
from .target import BODY, LEVELS, Target

__all__ = ["SWIN"]


def _merging(match: re.Match[str], target: Target) -> str:
    """Rename a patch merging: it ends a stage in mmdet, and begins the next one in timm."""
    return f"{BODY}layers.{int(match[1]) + 1}.downsample.{match[2]}"


def _norm(match: re.Match[str], target: Target) -> str | None:
    level = target.level(int(match[1]))
    return level and f"{LEVELS}{level}.scale.0.{match[2]}"


def _resize(name: str, values: Tensor, target: Target) -> tuple[Tensor, str]:
    expected = target.state[name].shape
    if values.shape == expected or values.shape[1:] != expected[1:]:
        return values, ""
    attention = target.body.get_submodule(name.removeprefix(BODY).rpartition(".")[0])
    old, new = (round(len(x) ** 0.5) // 2 + 1 for x in (values, target.state[name]))
    note = f"tables of relative positions interpolated from windows of {old} to {new}"
    return resize_rel_pos_bias_table(values, attention.window_size, expected), note


def _notes(target: Target) -> list[str]:
    """Note missing shifts: timm omits them in stages that fit into one window at the native image size."""
    blocks = [m for m in target.body.modules() if isinstance(m, SwinTransformerBlock)]
    if all(any(block.shift_size) for block in blocks if any(block.target_shift_size)):
        return norms_of_all(target)
    return [
        *norms_of_all(target),
        "blocks of the last stage are not shifted, but the published detectors shift them; to evaluate, give "
        "++model.backbone.bottom_up.timm_kwargs.always_partition=true to this command and to the evaluation",
    ]


SWIN = Layout(
    name="Swin Transformer of mmdet",
    signature=(r"backbone\.layers\.0\.blocks\.0\.attn\.relative_position_bias_table",),
    rules=(
        (r"backbone\.layers\.(\d+)\.downsample\.(.+)", _merging),
        (r"backbone\.((?:patch_embed|layers)\..+)", renamed(BODY + r"\1")),
        (r"backbone\.norm(\d+)\.(.+)", _norm),
        *mmdet.HEADS,
    ),
    not_needed={
        r".*\.relative_position_index": "follows from the window size",
        r".*\.attn_mask": "follows from the image size",
    },
    adapt={r".*\.relative_position_bias_table": _resize, **mmdet.ADAPT},
    notes=_notes,
)
