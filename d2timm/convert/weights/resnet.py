"""ResNets of detectron2's model zoo, and the ImageNet weights from which they are trained.

The names follow detectron2/modeling/backbone/resnet.py. Necks and heads are detectron2's own.
"""

from __future__ import annotations

import re

import torch
from detectron2.checkpoint.c2_model_loading import convert_basic_c2_names
from torch import nn

from .layout import IMAGENET, Layout, Values, same
from .target import BODY, Pixels, Target

__all__ = ["RESNET", "RESNET_IMAGENET", "RESNET_MSRA"]

#: Image format of the zoo's models, whose ImageNet weights MSRA trained in Caffe
MSRA = Pixels("BGR", (103.53, 116.28, 123.675), (1.0, 1.0, 1.0))
EPSILON = 1e-5  # epsilon of batch norms, in detectron2 and in timm

# detectron2 counts stages from 2, timm from 1; norms are parts of convolutions in detectron2.
_RULES = (
    (r"stem\.conv1\.weight", "conv1.weight"),
    (r"stem\.conv1\.norm\.(.+)", r"bn1.\1"),
    (r"res(\d+)\.(\d+)\.conv(\d)\.weight", r"layer{stage}.\2.conv\3.weight"),
    (r"res(\d+)\.(\d+)\.conv(\d)\.norm\.(.+)", r"layer{stage}.\2.bn\3.\4"),
    (r"res(\d+)\.(\d+)\.shortcut\.weight", r"layer{stage}.\2.downsample.0.weight"),
    (r"res(\d+)\.(\d+)\.shortcut\.norm\.(.+)", r"layer{stage}.\2.downsample.1.\3"),
)


def _body(match: re.Match[str], target: Target) -> str | None:
    for pattern, template in _RULES:
        if inner := re.fullmatch(pattern, match[1]):
            return BODY + inner.expand(template.format(stage=int(inner[1]) - 1 if "{" in template else 0))
    return None


def _pixels(weights: Values) -> Pixels:
    """The zoo's image format, unless the file contains its own."""
    mean, std = weights.get("pixel_mean"), weights.get("pixel_std")
    if mean is None or std is None or mean.numel() != 3 or std.numel() != 3:
        return MSRA
    means = tuple(mean.flatten().tolist())
    return Pixels("BGR" if means[0] < means[2] else "RGB", means, tuple(std.flatten().tolist()))


def _notes(target: Target) -> list[str]:
    first = next(
        (m for m in target.body.modules() if getattr(m, "stride", None) == 2 and hasattr(m, "conv3")), None
    )
    if first is None or not isinstance(first.conv1, nn.Conv2d) or first.conv1.stride != (1, 1):
        return []
    return [
        f"{target.model_name} has strides in 3x3 convolutions, the zoo's R50 and R101 in 1x1 convolutions, "
        "so features differ; to evaluate, give +model.backbone.bottom_up.timm_kwargs._target_="
        "d2timm.backbone.stride_in_1x1 to this command and to the evaluation"
    ]


def _from_caffe2(weights: Values) -> Values:
    """Rename weights of Caffe2, and add the statistics that its batch norms fold into scale and shift."""
    named = {new: weights[old] for old, new in zip(weights, convert_basic_c2_names([*weights]), strict=True)}
    for name in [name for name in named if name.endswith(".norm.weight")]:
        norm = name.removesuffix("weight")
        named.setdefault(f"{norm}running_mean", torch.zeros_like(named[name]))
        named.setdefault(f"{norm}running_var", torch.ones_like(named[name]) - EPSILON)
    return named


RESNET = Layout(
    name="ResNet of detectron2's model zoo",
    signature=(r"backbone\.bottom_up\.stem\.conv1\.weight",),
    rules=(
        (r"backbone\.bottom_up\.(.+)", _body),
        (r"(backbone\.(fpn_|top_block\.)|proposal_generator\.|roi_heads\.|sem_seg_head\.|head\.).+", same),
    ),
    pixels=_pixels,
    notes=_notes,
)
_CLASSIFIER = {
    r"(stem\.)?(fc|fc1000|linear)\..+": "only classification needs it",
    r".*\.momentum": "state of the optimizer",
}
RESNET_IMAGENET = Layout(
    name="ResNet of torchvision in detectron2's names",
    signature=(r"stem\.conv1\.weight", r"res2\.0\.conv1\.norm\.running_var"),
    rules=((r"((?:stem|res\d)\..+)", _body),),
    not_needed=_CLASSIFIER,
    pixels=lambda weights: IMAGENET,
)
RESNET_MSRA = Layout(
    name="ResNet of MSRA in Caffe2's names",
    signature=(r"conv1_w", r"res2_0_branch2a_w"),
    rules=RESNET_IMAGENET.rules,
    not_needed=_CLASSIFIER,
    pixels=lambda weights: MSRA,
    prepare=_from_caffe2,
    notes=_notes,
)
