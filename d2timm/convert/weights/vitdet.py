"""ViTDet of detectron2 (projects/ViTDet), and plain transformers pretrained by MAE.

The names follow detectron2/modeling/backbone/vit.py and https://github.com/facebookresearch/mae
(models_mae.py). Published position embeddings are for images of 224 pixels, and ViTDet interpolates them for
each image. Here they are interpolated once, in the same way, to the size of the target.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from .layout import Layout, renamed, same
from .target import BODY, Target

__all__ = ["MAE", "VITDET"]


def _positions(name: str, values: Tensor, target: Target) -> tuple[Tensor, str]:
    """Position embeddings (1, cells + 0 or 1 class token, C) as (1, H, W, C)."""
    expected = target.state[name].shape
    side = int((values.shape[1] if values.dim() == 3 else 0) ** 0.5)
    if values.dim() != 3 or len(expected) != 4 or values.shape[1] - side**2 not in (0, 1) or not side:
        return values, ""
    grid = values[:, -(side**2) :].reshape(1, side, side, -1)
    if grid.shape == expected:
        return grid, ""
    grid = F.interpolate(grid.permute(0, 3, 1, 2), expected[1:3], mode="bicubic", align_corners=False)
    note = f"position embeddings interpolated from {side}x{side} to {expected[1]}x{expected[2]} cells"
    return grid.permute(0, 2, 3, 1), note


def _relative(name: str, values: Tensor, target: Target) -> tuple[Tensor, str]:
    """Relative positions (2 * side - 1, C), interpolated to the side of the target."""
    expected = target.state[name].shape
    if values.shape == expected or values.shape[1:] != expected[1:]:
        return values, ""
    resized = F.interpolate(values.T[None], expected[0], mode="linear")[0].T
    old, new = (len(x) // 2 + 1 for x in (values, resized))
    return resized, f"relative positions interpolated from {old} to {new} cells per side"


def _notes(target: Target) -> list[str]:
    eps = next((m.eps for n, m in target.body.named_modules() if n.endswith("norm1")), 1e-6)
    if eps == 1e-6:
        return []
    return [
        f"layer norms of {target.model_name} have an epsilon of {eps:g}, ViTDet's have 1e-06, as in "
        "mask_rcnn_vitdet_base_100ep.py"
    ]


ADAPT = {BODY + r"pos_embed": _positions, BODY + r".*\.rel_pos_[hw]": _relative}
VITDET = Layout(
    name="ViTDet of detectron2",
    signature=(r"backbone\.net\.blocks\.0\.attn\.qkv\.weight", r"backbone\.simfp_\d+\..+"),
    rules=(
        (r"backbone\.net\.(.+)", renamed(BODY + r"\1")),
        (r"(backbone\.simfp_|proposal_generator\.|roi_heads\.).+", same),
    ),
    adapt=ADAPT,
    notes=_notes,
)
_PRETRAINING = "only pretraining and classification need it"
MAE = Layout(
    name="plain vision transformer of MAE",
    signature=(r"cls_token", r"pos_embed", r"blocks\.0\.attn\.qkv\.weight"),
    rules=((r"pos_embed|(patch_embed|blocks)\..+", renamed(BODY + r"\g<0>")),),
    not_needed={
        r"cls_token|mask_token|decoder_.+": _PRETRAINING,
        r"(fc_)?norm\..+|head\..+": _PRETRAINING,
    },
    initialized={BODY + r".*\.rel_pos_[hw]": "relative positions start at 0, as in ViTDet"},
    adapt=ADAPT,
    notes=_notes,
)
