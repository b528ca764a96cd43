"""``MODEL.BACKBONE`` of an old config in terms of ``TimmBackbone``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import timm
from detectron2.modeling import BACKBONE_REGISTRY
from torch import nn

from ...backbone.arguments import select_features
from ...backbone.probing import pretrained_cfg, probe
from ...backbone.spec import BackboneSpec
from ...errors import ConfigError
from ...modeling.levels import nearest_feature
from ...utils.sizes import Size
from .account import Account
from .layers import CONFIG, Output, find_features, freeze_patterns
from .parts import Parts

__all__ = ["backbone_settings", "model_name"]

DEFAULT_STRIDES = [4, 8, 16, 32]


def model_name(account: Account) -> str:
    """Timm's name for the model of ``MODEL.BACKBONE.NAME``, as it is called now.

    Raises:
        ConfigError: not ``build_NAME_backbone`` or ``build_NAME_fpn_backbone`` with a NAME of timm's.
    """
    given = account.old["MODEL.BACKBONE.NAME"]
    account.convert("MODEL.BACKBONE.NAME")
    told = f"{account.old.name}: MODEL.BACKBONE.NAME={given}"
    if given in BACKBONE_REGISTRY:
        default = "" if "MODEL.BACKBONE.NAME" in account.old.given else "the default, "
        raise ConfigError(
            f"{told} is {default}detectron2's own: name a model of timm, such as "
            "--opts MODEL.BACKBONE.NAME build_resnet50_fpn_backbone"
        )
    name = given.removeprefix("build_").removesuffix("_backbone").removesuffix("_fpn")
    try:
        facts = pretrained_cfg(name)
    except ConfigError as error:
        raise ConfigError(f"{told}: {error}") from None
    now, tag = str(facts.get("architecture") or name), facts.get("tag")
    if now != name.partition(".")[0]:
        name = f"{now}.{tag}" if tag else now
        account.note("MODEL.BACKBONE.NAME", f"timm calls it {name} now")
    return str(name)


def backbone_settings(account: Account, name: str, parts: Parts) -> dict[str, Any]:
    """The keys of the backbone in ours, and what has become of each.

    Args:
        account: of the config.
        name: timm's name of the model.
        parts: recipe and neck.

    Returns:
        Key of our tree -> value.

    Raises:
        ConfigError: layers that the model does not have, or lists whose lengths differ.
    """
    old = account.old
    size = _fixed_size(account, name)
    source = probe(name, size, ())
    outputs = _outputs(account, source)
    strides, names = [o.stride for o in outputs], [o.name for o in outputs]
    usual = _usual(outputs, parts)
    taken = _taken(account, outputs, usual, parts)
    features = find_features(account, source, outputs)
    used = [names.index(name) for name in taken]
    fitting = select_features(source.features, strides, None, used)
    settings: dict[str, Any] = {
        "out_indices": None if [features[i] for i in used] == fitting else [f.index for f in features],
        "remaps": names,
        "strides": strides,
        "fixed_input_size": list(size) if isinstance(size, tuple) else size,
        "pretrained": old[f"{CONFIG}.PRETRAINED"],
        "freeze_at": old["MODEL.BACKBONE.FREEZE_AT"],
        "freeze": freeze_patterns(account, source, outputs, features, used),
    }
    if old[f"{CONFIG}.PRETRAINED"] and not timm.is_model_pretrained(name):
        account.note(f"{CONFIG}.PRETRAINED", f"timm has no weights for {name}; give checkpoint_path=FILE")
    if old["MODEL.BACKBONE.FREEZE_AT"]:
        random = "" if old[f"{CONFIG}.PRETRAINED"] else ", and these weights are random ones"
        told = f"detectron2_timm itself froze nothing{random}: freeze_at=0 is what it did"
        account.note("MODEL.BACKBONE.FREEZE_AT", told)
    account.convert(*(f"{CONFIG}.{key}" for key in ("REMAPS", "STRIDES", "OUT_FEATURES", "PRETRAINED")))
    account.convert("MODEL.BACKBONE.FREEZE_AT", f"{CONFIG}.FREEZE_LAYERS")
    prefixed = {f"model.backbone.bottom_up.{key}": value for key, value in settings.items()}
    return prefixed if taken == usual else {**prefixed, "model.backbone.in_features": taken}


def _fixed_size(account: Account, name: str) -> Size | bool | None:
    """The size that images are resized to: that for which detectron2_timm made the model."""
    old, key = account.old, "INPUT.FIXED_INPUT_SIZE"
    account.convert(key)
    if not old[key]:
        return None
    plain = probe(name, None, ())
    if not (plain.input_spec.size or plain.input_spec.multisize or plain.kwargs):
        account.converted.remove(key)
        account.needless[key] = "the model takes images of any size"
        return None
    step = max(old[f"{CONFIG}.STRIDES"] or DEFAULT_STRIDES)
    sides = max(old["INPUT.MIN_SIZE_TRAIN"], default=0), old["INPUT.MAX_SIZE_TRAIN"]
    size = (sides[0] // step * step, sides[1] // step * step)
    if 0 in size:
        raise ConfigError(
            f"{old.name}: INPUT: images of {sides[0]}x{sides[1]} are smaller than a stride of {step}"
        )
    try:
        probe(name, size, ())
    except ConfigError:
        account.note(key, f"{name} does not run at {size[0]}x{size[1]}: its native size is taken")
        return True
    told = f"images are resized to {size[0]}x{size[1]}; fixed_input_size=None: only where the model needs it"
    account.note(key, told)
    return size


def _outputs(account: Account, source: BackboneSpec) -> list[Output]:
    old = account.old
    layers, strides, remaps = (old[f"{CONFIG}.{key}"] for key in ("OUT_FEATURES", "STRIDES", "REMAPS"))
    for values, kind, told in ((layers, str, "names"), (strides, int, "pixels"), (remaps, str, "names")):
        if not all(isinstance(value, kind) and value for value in values):
            raise ConfigError(f"{old.name}: {CONFIG}: {values} is not a list of {told}")
    if not layers:
        account.note(f"{CONFIG}.OUT_FEATURES", "it is empty: the features whose strides fit are taken")
        strides = strides or DEFAULT_STRIDES
        known = {feature.stride: feature.name for feature in source.features}
        timms = [known.get(stride, _name(stride)) for stride in strides]
        wanted = {*old["MODEL.FPN.IN_FEATURES"], *old["MODEL.RPN.IN_FEATURES"]}
        remaps = remaps or (timms if wanted & {*timms} else [_name(stride) for stride in strides])
        layers = [None] * len(strides)
    if len(layers) != len(strides) or len(remaps) not in (0, len(layers)):
        raise ConfigError(
            f"{old.name}: {CONFIG}: OUT_FEATURES has {len(layers)} entries, STRIDES {len(strides)}, REMAPS "
            f"{len(remaps)}: each needs as many, or REMAPS none"
        )
    outputs = []
    for old_name, layer, stride in zip(remaps or layers, layers, strides, strict=True):
        usable = old_name.isidentifier() and not hasattr(nn.ModuleDict, old_name)
        outputs.append(Output(old_name, old_name if usable else _name(stride), layer, stride))
    renamed = [f"{output.old_name} is {output.name}" for output in outputs if output.old_name != output.name]
    if renamed:
        account.note(f"{CONFIG}.REMAPS", f"names are identifiers here: {', '.join(renamed)}")
    return outputs


def _name(stride: int) -> str:
    return f"res{int(math.log2(stride))}"


def _usual(outputs: Sequence[Output], parts: Parts) -> list[str]:
    """Names of the outputs that the neck takes if it is not told."""
    names, strides = [o.name for o in outputs], [o.stride for o in outputs]
    if parts.neck == "none":
        return nearest_feature(names, strides, 16)
    return [o.name for o in outputs if o.stride >= parts.finest]


def _taken(account: Account, outputs: Sequence[Output], usual: list[str], parts: Parts) -> list[str]:
    """Names of the outputs that the neck is to take: the old pyramid's or, without one, the heads'."""
    key = "MODEL.RPN.IN_FEATURES" if parts.neck == "none" else "MODEL.FPN.IN_FEATURES"
    wanted: list[str] = account.old[key]
    found = [output for output in outputs if output.old_name in wanted]
    taken = [output.name for output in found if output.name in usual or output.stride >= parts.finest]
    account.convert(key)
    if parts.neck == "none":
        account.needless["MODEL.FPN.IN_FEATURES"] = "there is no pyramid"
    if parts.neck != "none" and (not wanted or (len(found) == len(wanted) and taken)):
        return taken or usual
    if parts.neck == "none" and len(found) == len(wanted) == 1:
        told = f"{wanted[0]} is {found[0].level}, after a 1x1 convolution to the width of the heads"
        account.note(key, told)
        if account.old["MODEL.ROI_HEADS.IN_FEATURES"] == wanted:
            account.convert("MODEL.ROI_HEADS.IN_FEATURES")
        return taken
    gives = ", ".join(output.old_name for output in outputs)
    account.lost[key] = f"the outputs are {gives}; taken: {', '.join(usual)}"
    return usual
