"""Layers of a model, by the names that an old config has for them: those of features, and those to freeze."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ...backbone.arguments import select_features
from ...backbone.spec import BackboneSpec, Feature
from ...backbone.timm_backbone import TimmBackbone
from ...errors import ConfigError
from ...utils.checks import suggest
from .account import Account

__all__ = ["CONFIG", "Output", "find_features", "freeze_patterns"]

CONFIG = "MODEL.BACKBONE.CONFIG"


@dataclass(frozen=True)
class Output:
    """An output of the backbone.

    Attributes:
        old_name: by which the rest of the old config knows it.
        name: here.
        layer: of the model; None: the one whose stride fits.
        stride: in pixels.
    """

    old_name: str
    name: str
    layer: str | None
    stride: int

    @property
    def level(self) -> str:
        """What a neck calls its level of that stride."""
        return f"p{int(math.log2(self.stride))}"


def find_features(account: Account, source: BackboneSpec, outputs: Sequence[Output]) -> list[Feature]:
    """The feature of each output; where strides of a pyramid are not those said, the features that fit.

    Raises:
        ConfigError: a layer that the model does not have.
    """
    old, strides = account.old, [output.stride for output in outputs]
    fitting = select_features(source.features, strides)
    modules = [name for name, _ in source.create_on_meta().named_modules()]
    features = [
        fit if output.layer is None else _feature(account, source, modules, output.layer)
        for output, fit in zip(outputs, fitting, strict=True)
    ]
    measured = [feature.stride for feature in features]
    if measured != strides:
        names = ", ".join(feature.name for feature in features)
        told = f"{names} have strides {', '.join(f'{stride:g}' for stride in measured)}"
        if len({feature.stride for feature in source.features}) > 1:
            features = fitting
            told += f": {', '.join(feature.name for feature in features)} are taken, whose strides fit"
        else:
            told += ": up-sampled and pooled"
        account.note(f"{CONFIG}.STRIDES", told)
    channels = [feature.channels for feature in features]
    given = old[f"{CONFIG}.CHANNELS"]
    account.needless[f"{CONFIG}.CHANNELS"] = "they follow from the model"
    if given and given != channels:
        account.note(f"{CONFIG}.CHANNELS", f"the model has {', '.join(map(str, channels))}")
    return features


def _feature(account: Account, source: BackboneSpec, modules: Sequence[str], layer: str) -> Feature:
    """The feature of timm's that a layer of a model gives, or else the first one after it."""
    if layer not in modules or not layer:
        raise ConfigError(
            f"{account.old.name}: {CONFIG}.OUT_FEATURES: {source.model_name} has no layer {layer!r}: "
            + suggest(layer, modules)
        )

    def end(path: str) -> int:
        """Place of the last module in a path; models are made in the order in which they run."""
        inside = [i for i, name in enumerate(modules) if name == path or name.startswith(f"{path}.")]
        return max(inside, default=-1)

    last = end(layer)
    for feature in source.features:
        if end(feature.name) >= last:
            break
    if end(feature.name) != last:
        account.note(f"{CONFIG}.OUT_FEATURES", f"timm gives no {layer}, but {feature.name} after it")
    return feature


def freeze_patterns(
    account: Account,
    source: BackboneSpec,
    outputs: Sequence[Output],
    features: Sequence[Feature],
    used: Sequence[int],
) -> list[str]:
    """Patterns of the parameters of the layers to freeze.

    Args:
        account: of the config.
        source: the model.
        outputs: whose names stand for their layers.
        features: of the outputs.
        used: numbers of the outputs that the neck takes; what only the others need is not there.

    Raises:
        ConfigError: a layer that the model does not have.
    """
    key = f"{CONFIG}.FREEZE_LAYERS"
    layers = account.old[key]
    if not layers:
        return []
    whole = [name for name, _ in source.create_on_meta().named_parameters()]
    with torch.device("meta"):
        pruned = TimmBackbone(
            source.model_name,
            out_indices=[features[i].index for i in used],
            remaps=[outputs[i].name for i in used],
            strides=[outputs[i].stride for i in used],
        )
    kept = [name for name, _ in pruned.model.named_parameters()]
    named = {
        output.old_name: output.layer or feature.name
        for output, feature in zip(outputs, features, strict=True)
    }
    patterns = []
    for layer in layers:
        path = named.get(layer, layer)
        if path not in whole and not _below(path, whole):
            known = [*named, *(name for name, _ in source.create_on_meta().named_children())]
            raise ConfigError(
                f"{account.old.name}: {key}: {source.model_name} has no layer {layer!r}: {suggest(layer, known)}"
            )
        if path in kept or _below(path, kept):
            patterns.append(path if path in kept else f"{path}.*")
        else:
            account.note(key, f"{path} is not there, as no feature needs it")
    return patterns


def _below(path: str, names: Sequence[str]) -> bool:
    return any(name.startswith(f"{path}.") for name in names)
