"""Swin Transformer in mmdet (https://github.com/SwinTransformer/Swin-Transformer-Object-Detection).

Names after mmdet/models/backbones/swin_transformer.py. Queries, keys and values, the four neighbours that
are merged, and the tables of relative positions lie in the same order as in timm.
"""

from __future__ import annotations

import re

from timm.layers import resize_rel_pos_bias_table
from timm.models.swin_transformer import SwinTransformerBlock
from torch import Tensor

from ..weights import mmdet
from .layout import Layout, norms_of_all, renamed
from .target import BODY, LEVELS, Target

__all__ = ["SWIN"]


def _merging(match: re.Match[str], target: Target) -> str:
    """Patches are merged at the end of a stage there, and at the start of the next one here."""
    return f"{BODY}layers.{int(match[1]) + 1}.downsample.{match[2]}"


def _norm(match: re.Match[str], target: Target) -> str | None:
    level = target.level(int(match[1]))
    return level and f"{LEVELS}{level}.scale.0.{match[2]}"


def _resize(name: str, values: Tensor, target: Target) -> tuple[Tensor, str]:
    wanted = target.state[name].shape
    if values.shape == wanted or values.shape[1:] != wanted[1:]:
        return values, ""
    attention = target.body.get_submodule(name.removeprefix(BODY).rpartition(".")[0])
    old, new = (round(len(x) ** 0.5) // 2 + 1 for x in (values, target.state[name]))
    told = f"tables of relative positions interpolated from windows of {old} to {new}"
    return resize_rel_pos_bias_table(values, attention.window_size, wanted), told


def _notes(target: Target) -> list[str]:
    """Where the shift is left out: timm does in stages that are a window at the model's own image size."""
    blocks = [m for m in target.body.modules() if isinstance(m, SwinTransformerBlock)]
    if all(any(block.shift_size) for block in blocks if any(block.target_shift_size)):
        return norms_of_all(target)
    return [
        *norms_of_all(target),
        "blocks of the last stage are not shifted, those of the published detectors are; to evaluate, give "
        "here and there ++model.backbone.bottom_up.timm_kwargs.always_partition=true",
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
    left_over={
        r".*\.relative_position_index": "follows from the size of the windows",
        r".*\.attn_mask": "follows from the size of the image",
    },
    adapt={r".*\.relative_position_bias_table": _resize, **mmdet.ADAPT},
    notes=_notes,
)
