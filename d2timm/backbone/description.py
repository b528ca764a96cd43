"""Describe a backbone without its weights: levels, route, size, cost, licence.

All runs are on the ``meta`` device, so that even giant models are described in seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import timm
import torch
from tabulate import tabulate
from timm.models import split_model_name_tag
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry
from tqdm import tqdm

from ..errors import ConfigError
from ..utils.checks import suggest
from ..utils.sizes import Size
from .meta import MetaRun
from .pixel_stats import pixel_mean, pixel_std
from .probing import pretrained_cfg, probe
from .spec import BackboneSpec
from .surgery import saved_bytes
from .timm_backbone import TimmBackbone

__all__ = [
    "Description",
    "LevelInfo",
    "count_parameters",
    "describe",
    "find",
    "kind",
    "levels",
    "multiply_adds",
    "on_meta",
    "table_of_levels",
]


@dataclass(frozen=True)
class LevelInfo:
    """One output of a backbone.

    Attributes:
        name: name of the output.
        index: index of the timm feature from which it is computed.
        module: path of the module that computes the feature.
        native_stride: stride of the feature, image pixels per cell.
        stride: stride of the output, image pixels per cell.
        channels: number of channels of feature and output.
    """

    name: str
    index: int
    module: str
    native_stride: float
    stride: int
    channels: int


@dataclass(frozen=True)
class Description:
    """A backbone in numbers.

    Attributes:
        model_name: timm's name of the model.
        kind: see ``kind``.
        route: how images of any size are adapted to the model, see ``InputSpec``.
        refused: route -> reason, for each preferable route that the model does not support.
        native_size: (height, width) in pixels of the images for which the model was designed.
        levels: the outputs, from shallow to deep.
        parameters: number of parameters, without those that only timm's classifier uses.
        size: (height, width) in pixels of the image to which the costs refer.
        multiply_adds: multiply-adds of a forward pass with one image.
        activation_bytes: bytes per image that a training step keeps for the backward pass, in float32.
        pixel_mean: mean of each channel, 0 to 255, in RGB order.
        pixel_std: standard deviation of each channel, 0 to 255, in RGB order.
        licence: licence of the weights to which the name refers, as timm declares it; None: undeclared.
        tags: tags of the pretrained weights that timm has for the architecture.
    """

    model_name: str
    kind: str
    route: str
    refused: dict[str, str]
    native_size: Size
    levels: list[LevelInfo]
    parameters: int
    size: Size
    multiply_adds: int
    activation_bytes: int
    pixel_mean: list[float]
    pixel_std: list[float]
    licence: str | None
    tags: list[str]

    def __str__(self) -> str:
        size = f"{self.size[0]}x{self.size[1]}"
        facts = [
            ["kind", self.kind],
            ["native size", f"{self.native_size[0]}x{self.native_size[1]}"],
            ["route", self.route],
            *(["", f"not {route}: {reason}"] for route, reason in self.refused.items()),
            ["parameters", f"{self.parameters / 1e6:.2f} M"],
            [f"multiply-adds at {size}", f"{self.multiply_adds / 1e9:.2f} G"],
            [
                f"activations at {size}",
                f"{self.activation_bytes / 2**20:.0f} MiB per image in training, float32",
            ],
            ["pixel mean", ", ".join(f"{value:g}" for value in self.pixel_mean)],
            ["pixel std", ", ".join(f"{value:g}" for value in self.pixel_std)],
            ["licence of the weights", self.licence or "not declared by timm"],
            ["pretrained", ", ".join(self.tags) or "none"],
        ]
        text = "\n".join(f"{key:26s}{value}" for key, value in facts)
        return f"{self.model_name}\n\n{table_of_levels(self.levels)}\n\n{text}"


def describe(backbone: TimmBackbone, size: Size) -> Description:
    """Describe a backbone.

    Args:
        backbone: a backbone on ``meta``; it is left in training mode.
        size: (height, width) in pixels of the image to which the costs refer.
    """
    spec = backbone.spec
    arch = split_model_name_tag(spec.model_name)[0]
    images = torch.empty(1, spec.channels, *size, device="meta")
    return Description(
        model_name=spec.model_name,
        kind=kind(spec),
        route=str(spec.input_spec),
        refused=dict(spec.refused),
        native_size=spec.native_size,
        levels=levels(backbone),
        parameters=count_parameters(backbone),
        size=size,
        multiply_adds=multiply_adds(backbone, images),
        activation_bytes=saved_bytes(lambda: backbone.train()(images), backbone),
        pixel_mean=pixel_mean(spec.model_name, spec.channels),
        pixel_std=pixel_std(spec.model_name, spec.channels),
        licence=pretrained_cfg(spec.model_name).get("license"),
        tags=[split_model_name_tag(name)[1] for name in timm.list_pretrained(f"{arch}.*")],
    )


def on_meta(model_name: str) -> TimmBackbone:
    """Create a backbone on ``meta``, with default arguments.

    Args:
        model_name: any name that ``timm.create_model`` accepts.

    Raises:
        ConfigError: the name is unknown.
    """
    probe(model_name, None, ())  # cached; the device context below slows every call of torch
    with torch.device("meta"):
        return TimmBackbone(model_name)


def find(pattern: str, most_parameters: int | None = None) -> dict[str, int]:
    """Find models by name.

    Args:
        pattern: shell pattern, such as ``convnext*``.
        most_parameters: omit backbones with more parameters; None: no limit.

    Returns:
        Model name -> number of parameters of the backbone.

    Raises:
        ConfigError: no name matches.
    """
    names = timm.list_models(pattern)
    if not names:
        raise ConfigError(
            f"--list {pattern!r}: no model of timm {timm.__version__} matches; "
            + suggest(pattern, timm.list_models())
        )
    parameters = {name: count_parameters(on_meta(name)) for name in tqdm(names, leave=False, disable=None)}
    return {name: n for name, n in parameters.items() if most_parameters is None or n <= most_parameters}


def kind(spec: BackboneSpec) -> str:
    """Classify a model by the strides of its features.

    Returns:
        ``pyramid`` if it has the strides 4, 8, 16 and 32; ``one stride``; otherwise ``part of a pyramid``.
    """
    strides = {feature.stride for feature in spec.features}
    if strides >= {4, 8, 16, 32}:
        return "pyramid"
    return "one stride" if len(strides) == 1 else "part of a pyramid"


def levels(backbone: TimmBackbone) -> list[LevelInfo]:
    """List the outputs of a backbone, from shallow to deep."""
    features = [backbone.spec.features[index] for index in backbone.out_indices]
    return [
        LevelInfo(name, feature.index, feature.name, feature.stride, shape.stride, shape.channels)
        for feature, (name, shape) in zip(features, backbone.output_shape().items(), strict=True)
    ]


def table_of_levels(levels: list[LevelInfo]) -> str:
    """Format levels as a table with one row per level."""
    rows = [[x.name, f"{x.index} {x.module}", f"{x.native_stride:g}", x.stride, x.channels] for x in levels]
    return str(tabulate(rows, ["level", "timm feature", "native stride", "stride", "channels"]))


def count_parameters(module: nn.Module) -> int:
    """Count the parameters of a module; shared ones count once."""
    return sum(parameter.numel() for parameter in module.parameters())


def multiply_adds(module: nn.Module, images: torch.Tensor) -> int:
    """Count the multiply-adds of a forward pass in convolutions, matrix products and attention.

    Args:
        module: a module on ``meta``; it is left in eval mode.
        images: (N, C, H, W) on ``meta``.
    """
    with torch.no_grad(), MetaRun(), _FlopCounter() as counter:
        module.eval()(images)
    return int(counter.flops) // 2


class _FlopCounter(TorchDispatchMode):
    """torch's ``FlopCounterMode`` without its counts per module.

    They take most of its time, and fail for modules that pass tuples to each other, as in pit.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if func.overloadpacket in flop_registry:
            self.flops += flop_registry[func.overloadpacket](*args, **kwargs, out_val=out)
        return out
