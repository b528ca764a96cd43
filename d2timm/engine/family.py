"""What kind of model a backbone is, from what timm says of it and from what it computes."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._python_dispatch import TorchDispatchMode

from ..backbone.description import count_parameters, kind, on_meta
from ..backbone.meta import MetaRun
from ..backbone.probing import pretrained_cfg

__all__ = ["Family", "family_of"]

aten = torch.ops.aten
#: Products of features with features, as in attention; convolutions and linear layers multiply by weights
ATTENTION = {aten.bmm, aten.baddbmm, aten.scaled_dot_product_attention}


@dataclass(frozen=True)
class Family:
    """What the settings of a training may depend on.

    Attributes:
        kind: ``pyramid`` of the strides 4, 8, 16 and 32, ``part of a pyramid``, or ``one stride``.
        norm: ``batch`` if batch norms have most of the normalized channels, or ``other``.
        attention: whether features are multiplied by features.
        labels: classes of the pretraining; 0: it had none, as with masked images.
        parameters: of the backbone, in millions.
    """

    kind: str
    norm: str
    attention: bool
    labels: int
    parameters: float

    def fits(self, when: dict[str, Any]) -> bool:
        """Whether all attributes are as given, and the parameters are not more."""
        return all(
            self.parameters <= value if name == "parameters" else getattr(self, name) == value
            for name, value in when.items()
        )


@functools.cache
def family_of(model_name: str) -> Family:
    """The family of a timm model, built on ``meta``.

    Args:
        model_name: any name that ``timm.create_model`` accepts.

    Raises:
        ConfigError: the name is unknown.
    """
    backbone = on_meta(model_name)
    images = torch.empty(1, backbone.spec.channels, *backbone.spec.trial_size, device="meta")
    with torch.no_grad(), MetaRun(), _Products() as products:
        backbone.eval()(images)
    return Family(
        kind=kind(backbone.spec),
        norm=_main_norm(backbone),
        attention=products.found,
        labels=pretrained_cfg(model_name)["num_classes"],
        parameters=count_parameters(backbone) / 1e6,
    )


class _Products(TorchDispatchMode):
    """Looks for products of features with features."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.found |= func.overloadpacket in ATTENTION
        return func(*args, **(kwargs or {}))


def _main_norm(module: nn.Module) -> str:
    """The kind of norm with the most channels; the weights of all norms have one dimension."""
    batch = other = 0
    for each in module.modules():
        weight = getattr(each, "weight", None)
        if isinstance(each, _BatchNorm):
            batch += each.num_features
        elif isinstance(weight, nn.Parameter) and weight.ndim == 1:
            other += len(weight)
    return "batch" if batch > other else "other"
