"""Translate the outputs of an old config's backbone, its image size and its frozen layers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import timm
import torch
from torch import nn

from ...backbone.arguments import select_features
from ...backbone.probing import probe
from ...backbone.spec import BackboneSpec, Feature
from ...backbone.timm_backbone import TimmBackbone
from ...errors import ConfigError
from ...modeling.levels import nearest_feature
from ...utils.checks import suggest
from ...utils.sizes import Size
from .account import Account
from .parts import Parts
from .rules import CONFIG

__all__ = ["backbone_settings"]

DEFAULT_STRIDES = [4, 8, 16, 32]
FEATURES, STRIDES, REMAPS, FREEZE = (
    f"{CONFIG}.{key}" for key in ("OUT_FEATURES", "STRIDES", "REMAPS", "FREEZE_LAYERS")
)


def backbone_settings(account: Account, name: str, parts: Parts) -> dict[str, Any]:
    """Translate the keys of the backbone's outputs, its image size and its frozen layers.

    Args:
        account: the account of the config.
        name: timm name of the model.
        parts: recipe and neck.

    Returns:
        New key -> value.

    Raises:
        ConfigError: the model does not have a layer, or lists differ in length.
    """
    old = account.old
    size = _fixed_size(account, name)
    spec = probe(name, size, ())
    layers, strides, old_names = _read_outputs(account, spec)
    names = _identifiers(account, old_names, strides)
    features = _find_features(account, spec, layers, strides)
    pyramid = parts.options.get("neck") != "none"
    default = [i for i, stride in enumerate(strides) if stride >= parts.finest]
    if not pyramid:
        default = [names.index(name) for name in nearest_feature(names, strides, 16)]
    used = _neck_inputs(account, old_names, strides, default, pyramid)
    used_features = [features[i] for i in used]
    fitting = used_features == select_features(spec.features, strides, None, used)
    settings: dict[str, Any] = {
        "out_indices": None if fitting else [feature.index for feature in features],
        "remaps": names,
        "strides": strides,
        "fixed_input_size": list(size) if isinstance(size, tuple) else size,
    }
    if old[FREEZE]:
        with torch.device("meta"):
            pruned = TimmBackbone(
                name,
                out_indices=[feature.index for feature in used_features],
                remaps=[names[i] for i in used],
                strides=[strides[i] for i in used],
            ).model
        old_layers = {n: layer or f.name for n, layer, f in zip(old_names, layers, features, strict=True)}
        settings["freeze"] = _freeze_patterns(account, spec, old_layers, pruned)
    account.convert(FEATURES, STRIDES, REMAPS, FREEZE)
    pretrained = old[f"{CONFIG}.PRETRAINED"]
    if pretrained and not timm.is_model_pretrained(name):
        account.note(f"{CONFIG}.PRETRAINED", f"timm has no weights for {name}; give checkpoint_path=FILE")
    if old["MODEL.BACKBONE.FREEZE_AT"]:
        text = "detectron2_timm itself ignored it and froze nothing: freeze_at=0 reproduces that"
        random = "" if pretrained else "; the frozen weights are random"
        account.note("MODEL.BACKBONE.FREEZE_AT", text + random)
    settings = {f"model.backbone.bottom_up.{key}": value for key, value in settings.items()}
    taken = {} if used == default else {"model.backbone.in_features": [names[i] for i in used]}
    return settings | taken


def _fixed_size(account: Account, name: str) -> Size | bool | None:
    """``fixed_input_size``: the size for which detectron2_timm created the model."""
    old, key = account.old, "INPUT.FIXED_INPUT_SIZE"
    account.convert(key)
    if not old[key]:
        return None
    plain = probe(name, None, ())
    if not (plain.input_spec.size or plain.input_spec.multisize or plain.kwargs):
        account.converted.remove(key)
        account.not_needed[key] = "the model accepts images of any size"
        return None
    step = max(old[STRIDES] or DEFAULT_STRIDES)
    height, width = max(old["INPUT.MIN_SIZE_TRAIN"], default=0), old["INPUT.MAX_SIZE_TRAIN"]
    size = (height // step * step, width // step * step)
    if 0 in size:
        raise ConfigError(
            f"{old.name}: INPUT: images of {height}x{width} are smaller than a stride of {step}"
        )
    account.convert(key, written=True)
    try:
        probe(name, size, ())
    except ConfigError:
        account.note(key, f"{name} does not run at {size[0]}x{size[1]}: its native size is used")
        return True
    text = f"images are resized to {size[0]}x{size[1]}; fixed_input_size=None resizes only where needed"
    account.note(key, text)
    return size


def _read_outputs(account: Account, spec: BackboneSpec) -> tuple[list[str | None], list[int], list[str]]:
    """Layer, stride and old name of each output; layer None: the one whose stride fits."""
    old = account.old
    for key, kind, items in ((FEATURES, str, "names"), (STRIDES, int, "pixels"), (REMAPS, str, "names")):
        if not all(isinstance(value, kind) and value for value in old[key]):
            raise ConfigError(f"{old.name}: {key}={old[key]}: give a list of {items}")
    layers, strides, names = old[FEATURES], old[STRIDES], old[REMAPS]
    if not layers:
        account.note(FEATURES, "it is empty: the features whose strides fit are used")
        strides = strides or DEFAULT_STRIDES
        known = {feature.stride: feature.name for feature in spec.features}
        timm_names = [known.get(stride, _stage_name(stride)) for stride in strides]
        by_timm = {*old["MODEL.FPN.IN_FEATURES"], *old["MODEL.RPN.IN_FEATURES"]} & {*timm_names}
        names = names or (timm_names if by_timm else [_stage_name(stride) for stride in strides])
        layers = [None] * len(strides)
    names = names or layers
    if not len(layers) == len(strides) == len(names):
        raise ConfigError(
            f"{old.name}: {CONFIG}: OUT_FEATURES has {len(layers)} entries, STRIDES {len(strides)}, REMAPS "
            f"{len(names)}: give the same number of each, or no REMAPS"
        )
    return layers, strides, names


def _stage_name(stride: int) -> str:
    return f"res{int(math.log2(stride))}"


def _identifiers(account: Account, names: Sequence[str], strides: Sequence[int]) -> list[str]:
    """Names of the outputs in the new config, where they have to be identifiers."""
    new = [
        name if name.isidentifier() and not hasattr(nn.ModuleDict, name) else _stage_name(stride)
        for name, stride in zip(names, strides, strict=True)
    ]
    renamed = [f"{a} is now {b}" for a, b in zip(names, new, strict=True) if a != b]
    if renamed:
        account.note(REMAPS, f"names have to be identifiers: {', '.join(renamed)}")
    return new


def _neck_inputs(
    account: Account, names: Sequence[str], strides: Sequence[int], default: list[int], pyramid: bool
) -> list[int]:
    """Indices of the outputs that the old pyramid takes or, without one, the old heads."""
    key = "MODEL.FPN.IN_FEATURES" if pyramid else "MODEL.RPN.IN_FEATURES"
    wanted: list[str] = account.old[key]
    known = [i for i, name in enumerate(names) if name in wanted]
    account.convert(key)
    if pyramid:
        taken = [i for i in known if i in default]
        if not wanted or (len(known) == len(wanted) and taken):
            return taken or default
    else:
        account.not_needed["MODEL.FPN.IN_FEATURES"] = "there is no pyramid"
        if len(known) == len(wanted) == 1:
            level = f"p{int(math.log2(strides[known[0]]))}"
            account.note(key, f"{wanted[0]} becomes {level}, by a 1x1 convolution to the width of the heads")
            if account.old["MODEL.ROI_HEADS.IN_FEATURES"] == wanted:
                account.convert("MODEL.ROI_HEADS.IN_FEATURES")
            return known
    account.not_converted[key] = (
        f"the outputs are {', '.join(names)}; the neck takes {', '.join(names[i] for i in default)}"
    )
    return default


def _find_features(
    account: Account, spec: BackboneSpec, layers: Sequence[str | None], strides: list[int]
) -> list[Feature]:
    """The timm feature of each output; if strides of a pyramid are wrong, the features whose strides fit.

    Raises:
        ConfigError: the model does not have a layer.
    """
    fitting = select_features(spec.features, strides)
    modules = [name for name, _ in spec.create_on_meta().named_modules()]
    features = [
        fit if layer is None else _feature_of(account, spec, modules, layer)
        for layer, fit in zip(layers, fitting, strict=True)
    ]
    measured = [feature.stride for feature in features]
    if measured != strides:
        text = f"{_names(features)} have strides {', '.join(f'{stride:g}' for stride in measured)}: "
        if len({feature.stride for feature in spec.features}) > 1:
            features = fitting
            account.note(STRIDES, f"{text}{_names(features)} are used, whose strides fit")
        else:
            account.note(STRIDES, f"{text}they are up-sampled and pooled")
    channels = [feature.channels for feature in features]
    if account.old[f"{CONFIG}.CHANNELS"] not in ([], channels):
        account.note(f"{CONFIG}.CHANNELS", f"the model has {', '.join(map(str, channels))}")
    return features


def _names(features: Sequence[Feature]) -> str:
    return ", ".join(feature.name for feature in features)


def _feature_of(account: Account, spec: BackboneSpec, modules: Sequence[str], layer: str) -> Feature:
    """The timm feature that a layer computes, or the first one after it."""
    if layer not in modules:
        raise _unknown_layer(account, FEATURES, spec, layer, modules)

    def end(path: str) -> int:
        """Position of the last module in a path; modules are created in the order in which they run."""
        return max((i for i, name in enumerate(modules) if f"{name}.".startswith(f"{path}.")), default=-1)

    last = end(layer)
    feature = next((f for f in spec.features if end(f.name) >= last), spec.features[-1])
    if end(feature.name) != last:
        account.note(FEATURES, f"timm does not expose {layer}: {feature.name} after it is used")
    return feature


def _freeze_patterns(
    account: Account, spec: BackboneSpec, old_layers: dict[str, str], pruned: nn.Module
) -> list[str]:
    """Patterns of the parameters in FREEZE_LAYERS.

    Args:
        account: the account of the config.
        spec: the model.
        old_layers: old name of an output -> its layer.
        pruned: the model without the layers that no output needs.
    """
    model = spec.create_on_meta()
    patterns = []
    for layer in account.old[FREEZE]:
        path = old_layers.get(layer, layer)
        if pattern := _pattern(pruned, path):
            patterns.append(pattern)
        elif _pattern(model, path):
            account.note(FREEZE, f"{path} does not exist here, as no feature needs it")
        else:
            known = [*old_layers, *(name for name, _ in model.named_children())]
            raise _unknown_layer(account, FREEZE, spec, layer, known)
    return patterns


def _pattern(model: nn.Module, path: str) -> str | None:
    """The pattern of the parameters at a path; None if there are none."""
    names = [name for name, _ in model.named_parameters()]
    if path in names:
        return path
    return f"{path}.*" if any(name.startswith(f"{path}.") for name in names) else None


def _unknown_layer(
    account: Account, key: str, spec: BackboneSpec, layer: str, known: Sequence[str]
) -> ConfigError:
    text = f"{account.old.name}: {key}: {spec.model_name} has no layer {layer!r}"
    return ConfigError(f"{text}: {suggest(layer, known)}")
