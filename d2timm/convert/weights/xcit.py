"""XCiT in mmdet (https://github.com/facebookresearch/xcit, detection/).

The names follow detection/backbone/xcit.py. Its ``fpn1`` to ``fpn4`` bring the maps of four blocks to
the strides 4 to 32, as the levels of ``TimmBackbone`` do.
"""

from __future__ import annotations

import re

from torch import nn

from . import mmdet
from .layout import Layout, renamed
from .target import BODY, LEVELS, Target

__all__ = ["XCIT"]


def _level(match: re.Match[str], target: Target) -> str | None:
    """Rename a layer that doubles a map: a transposed convolution, or two with a norm and a GELU in between.

    The levels of the target may begin with a norm, which these files do not have.
    """
    levels = target.model.backbone.bottom_up.levels
    names, place = list(levels), int(match[1]) - 1
    if place >= len(names):
        return None
    layers = list(levels[names[place]].scale)
    first = next((i for i, layer in enumerate(layers) if isinstance(layer, nn.ConvTranspose2d)), 0)
    return f"{LEVELS}{names[place]}.scale.{int(match[2]) + first}.{match[3]}"


def _notes(target: Target) -> list[str]:
    if not any(target.norms):
        return []
    return [
        "the published models have no norm before their levels, and a batch norm between two doublings: give "
        "model.backbone.bottom_up.level_norm=none model.backbone.bottom_up.doubling_norm=SyncBN"
    ]


XCIT = Layout(
    name="XCiT of mmdet",
    signature=(r"backbone\.pos_embeder\.token_projection\.weight",),
    rules=(
        (r"backbone\.pos_embeder\.(.+)", renamed(BODY + r"pos_embed.\1")),
        (r"backbone\.((?:patch_embed|blocks)\..+)", renamed(BODY + r"\1")),
        (r"backbone\.fpn(\d+)\.(\d+)\.(.+)", _level),
        *mmdet.HEADS,
    ),
    not_needed={
        r"backbone\.(cls_attn_blocks|norm|head)\..+": "only classification needs it",
        r"backbone\.cls_token": "only classification needs it",
    },
    adapt=mmdet.ADAPT,
    notes=_notes,
)
