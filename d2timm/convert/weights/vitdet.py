"""ViTDet of detectron2 (projects/ViTDet), and the plain transformers that MAE trained for it.

Names after detectron2/modeling/backbone/vit.py and https://github.com/facebookresearch/mae
(models_mae.py). Position embeddings are those of images of 224 pixels, which ViTDet interpolates to each
image; those of the target are interpolated here, once and in the same way.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from .layout import Layout, renamed, same
from .target import BODY, Target

__all__ = ["MAE", "VITDET"]


def _positions(name: str, values: Tensor, target: Target) -> tuple[Tensor, str]:
    """(1, cells and perhaps a class token, C) to (1, H, W, C)."""
    wanted = target.state[name].shape
    side = int((values.shape[1] if values.dim() == 3 else 0) ** 0.5)
    if values.dim() != 3 or len(wanted) != 4 or values.shape[1] - side**2 not in (0, 1) or not side:
        return values, ""
    grid = values[:, -(side**2) :].reshape(1, side, side, -1)
    if grid.shape == wanted:
        return grid, ""
    grid = F.interpolate(grid.permute(0, 3, 1, 2), wanted[1:3], mode="bicubic", align_corners=False)
    told = f"position embeddings interpolated from {side}x{side} to {wanted[1]}x{wanted[2]} cells"
    return grid.permute(0, 2, 3, 1), told


def _relative(name: str, values: Tensor, target: Target) -> tuple[Tensor, str]:
    """(2 * side - 1, C) of another side."""
    wanted = target.state[name].shape
    if values.shape == wanted or values.shape[1:] != wanted[1:]:
        return values, ""
    resized = F.interpolate(values.T[None], wanted[0], mode="linear")[0].T
    old, new = (len(x) // 2 + 1 for x in (values, resized))
    return resized, f"relative positions interpolated from {old} to {new} cells a side"


def _notes(target: Target) -> list[str]:
    eps = next((m.eps for n, m in target.body.named_modules() if n.endswith("norm1")), 1e-6)
    if eps == 1e-6:
        return []
    return [
        f"layer norms of {target.model_name} have an epsilon of {eps:g}, ViTDet's of 1e-06; "
        "mask_rcnn_vitdet_base_100ep.py has those"
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
    name="plain vision transformer, as MAE trains it",
    signature=(r"cls_token", r"pos_embed", r"blocks\.0\.attn\.qkv\.weight"),
    rules=((r"pos_embed|(patch_embed|blocks)\..+", renamed(BODY + r"\g<0>")),),
    left_over={
        r"cls_token|mask_token|decoder_.+": _PRETRAINING,
        r"(fc_)?norm\..+|head\..+": _PRETRAINING,
    },
    fresh={BODY + r".*\.rel_pos_[hw]": "relative positions start at 0, as in ViTDet"},
    adapt=ADAPT,
    notes=_notes,
)
