"""Check that the choices in a tree fit together, before anything is built.

Only cheap values are evaluated: numbers, strings and what ``d2timm.modeling.levels`` derives from them, and
what classes declare as their traits. Everything else is left to the code that builds the model.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any, NamedTuple

from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from ..errors import ConfigError
from ..modeling import levels
from ..modeling.levels import fused_top_block, level_names, level_strides, taken_strides
from ..modeling.traits import Traits
from .groups import read_nodes
from .lazy import PLACES, target_name

__all__ = ["check_compatibility"]

#: Norms of convolutions -> widths of those
NORMS = {
    "backbone.norm": "backbone.out_channels",
    "head.norm": "head.conv_dims",
    "sem_seg_head.norm": "sem_seg_head.conv_dims",
    **{
        f"roi_heads.{head}.conv_norm": f"roi_heads.{head}.conv_dims"
        for head in ("box_head", "box_heads.0", "mask_head", "mask_heads.0")
    },
}


class _UnknownError(Exception):
    """A value that takes more than light functions."""


class _MisfitError(Exception):
    """What does not go together, and a fix that keeps the neck."""

    def __init__(self, wrong: str, fix: str) -> None:
        super().__init__(wrong)
        self.fix = fix


class _Neck(NamedTuple):
    levels: dict[str, int]  # name -> stride, fine to coarse
    own: list[str]  # names of those that are not its top block's
    learned: list[str]  # those that have parameters of their own
    feeding: list[str]  # those that the next coarser one is made of


def check_compatibility(cfg: DictConfig) -> None:
    """Make sure that detector, neck and ROI heads of a config go together.

    Args:
        cfg: the tree, as a recipe or the composed groups give it.

    Raises:
        ConfigError: a choice that does not go with another, why, and what would, in a line.
    """
    model = cfg.get("model")
    if not OmegaConf.is_dict(model):
        return
    _check_roi_heads(model)
    _check_group_norms(model)
    with suppress(_UnknownError):
        try:
            _check_levels(model)
        except _MisfitError as misfit:
            necks = _choices("neck", _fitting_necks(cfg))
            fix = f"use {necks}, or {misfit.fix}" if necks else misfit.fix
            raise ConfigError(f"{misfit}; {fix}") from None


def _check_roi_heads(model: DictConfig) -> None:
    """Raise ConfigError if a detector lacks the ROI heads that it needs, or has them and no use for them."""
    node = model.get("roi_heads")
    given = OmegaConf.to_container(node, resolve=False) if OmegaConf.is_dict(node) else node
    misfit = _misfit(model, given)
    if not misfit:
        return
    heads = (option for option, node in _options("roi_heads").items() if not _misfit(model, node))
    others = (option for option, node in _options("model").items() if not _misfit(node, given))
    fixes = filter(None, (_choices("roi_heads", heads), _choices("model", others)))
    raise ConfigError(f"{_chosen('model', model)} {misfit}: use {', or '.join(fixes)}")


def _misfit(model: Any, roi_heads: Any) -> str | None:
    """Why a detector does not fit ROI heads; None: it does, or it does not declare which it needs."""
    detector, heads = _traits(model), _traits(roi_heads)
    if detector is None:
        return None
    if detector.roi_heads == "none":
        return "has no ROI heads" if roi_heads else None
    if not roi_heads:
        return "needs ROI heads"
    masks = heads.tasks.get("segm") if heads else None
    if detector.roi_heads == "masks" and masks and roi_heads.get(masks, True) is None:
        return "needs ROI heads with masks"
    return None


def _check_group_norms(model: DictConfig) -> None:
    """Raise ConfigError if a width cannot be divided into the 32 groups of detectron2's group norm."""
    for norm, width in NORMS.items():
        with suppress(_UnknownError):
            given = _value(model, width) if _value(model, norm) == "GN" else []
            for channels in given if isinstance(given, list) else [given]:
                if isinstance(channels, int) and channels % 32:
                    raise ConfigError(
                        f"model.{width}={channels} and model.{norm}=GN: group norm takes multiples of 32"
                    )


def _check_levels(model: DictConfig) -> None:
    """Raise _MisfitError unless the neck has the levels that the detector uses, as it uses them."""
    neck = _neck(model)
    gives = f"{_chosen('neck', model.backbone)} gives {', '.join(neck.levels)}"
    users = dict(_users(model))
    for key, reader in users.items():
        with suppress(_UnknownError):
            names = _value(model, key) or []
            missing = [name for name in names if name not in neck.levels]
            if missing:
                raise _MisfitError(
                    f"model.{key}={_list(names)}: {gives}, not {', '.join(missing)}",
                    f"leave model.{key} out, it follows from the neck",
                )
            if names:
                _check_reader(model, key, reader, {name: neck.levels[name] for name in names})
    with suppress(_UnknownError):
        used = {name for key in users for name in _value(model, key) or []}
        if used and (idle := _idle(neck, used)):
            raise _MisfitError(
                f"{_chosen('model', model)} uses {', '.join(n for n in neck.levels if n in used)} and "
                f"{gives}: parameters of {', '.join(idle)} would have no gradient",
                _without(model.backbone, neck, idle),
            )


def _users(model: DictConfig) -> Iterator[tuple[str, str]]:
    """(key that names levels of the neck, key of the anchors or the pooler for them), as parts declare it."""
    parts = {f"{key!s}.": model.get(key) for key in model if key not in ("_target_", "backbone")}
    for place, node in {"": model, **parts}.items():
        if traits := _traits(node):
            for key, reader in traits.levels.items():
                yield f"{place}{key}", (f"{place}{reader}" if reader else f"{place}{key}")


def _traits(node: Any) -> Traits | None:
    """What the class of a node declares; None: nothing, or it is no node of a class."""
    target = node.get("_target_") if isinstance(node, (dict, DictConfig)) else None
    if target is None:
        return None
    known = read_nodes().traits
    if (name := target_name(target)) in known:
        return known[name]
    from detectron2.utils.registry import locate  # for a class of the user's own

    from ..modeling.detectron2_traits import traits_of

    with suppress(ImportError, AttributeError):  # whoever builds the model reports a name that is wrong
        return traits_of(locate(name))
    return None


def _idle(neck: _Neck, used: set[str]) -> list[str]:
    """Levels whose parameters nothing depends on that is used."""
    idle, alive = [], False
    for name in reversed(neck.levels):
        alive = name in used or (alive and name in neck.feeding)
        if name in neck.learned and not alive:
            idle.append(name)
    return idle[::-1]


def _without(node: DictConfig, neck: _Neck, idle: list[str]) -> str:
    """How to have a neck not make some of its levels."""
    if not set(idle) & set(neck.own):
        return "give model.backbone.top_block=null"
    key = "scale_factors" if "scale_factors" in node else "in_features"
    kept = [value for name, value in zip(neck.own, _value(node, key), strict=True) if name not in idle]
    return f"give model.backbone.{key}=[{','.join(map(str, kept))}]"


def _check_reader(model: DictConfig, key: str, place: str, used: dict[str, int]) -> None:
    """Raise _MisfitError if anchors or a pooler are made for other levels than those that they are given."""
    strides = list(used.values())
    names = ", ".join(used)
    for name, values in {"strides": strides, "scales": [1.0 / stride for stride in strides]}.items():
        with suppress(_UnknownError):
            given = _value(model, f"{place}.{name}")
            if given is not None and given != values:
                raise _MisfitError(
                    f"model.{place}.{name}={_list(given)}: {names} have {_list(values)}",
                    f"leave it and model.{key} out, both follow from the neck",
                )
    for name in ("sizes", "aspect_ratios"):
        with suppress(_UnknownError):
            given = _value(model, f"{place}.{name}")
            # one entry, or a flat list, is for every level
            if given and isinstance(given[0], list) and len(given) not in (1, len(used)):
                raise _MisfitError(
                    f"model.{place}.{name} has {len(given)} entries, and the levels are {len(used)}, {names}",
                    "give one entry for each level, or one for all",
                )


def _neck(model: DictConfig) -> _Neck:
    """What a neck gives that takes ``in_features`` and adds a ``top_block``, as FPN does."""
    node = model.get("backbone")
    if not OmegaConf.is_dict(node) or "in_features" not in node:
        raise _UnknownError
    try:
        remaps, strides = _value(node, "bottom_up.remaps"), _value(node, "bottom_up.strides")
        if len(set(remaps)) < len(remaps) or len(remaps) != len(strides):
            raise _UnknownError  # TimmBackbone says it better
        features, top_block = _value(node, "in_features"), _value(node, "top_block")
        taken = taken_strides(features, remaps, strides, scale_factors=_value(node, "scale_factors"))
        own, names = level_names(taken), level_names(taken, top_block)
    except TypeError:
        raise _UnknownError from None
    traits = _traits(node) or Traits()
    if top_block and not traits.own_last_level and top_block.in_feature not in (own[-1], features[-1]):
        raise _MisfitError(
            f"model.backbone.top_block makes more levels of {top_block.in_feature}, and the last one that "
            f"{_chosen('neck', node)} has is {own[-1]}",
            "give model.backbone.top_block=null",
        )
    fused = fused_top_block(top_block, _value(node, "num_layers"))
    return _Neck(
        levels=dict(zip(names, level_strides(taken, top_block), strict=True)),
        own=own,
        learned=names if fused or (top_block and top_block.learned) else own,
        feeding=names if traits.fuses_upwards else names[len(own) - 1 :],
    )


def _fitting_necks(cfg: DictConfig) -> Iterator[str]:
    """Other options of the neck that would go with all else of a config, lists given to the neck included."""
    old = cfg.model.backbone
    chosen = _chosen("neck", old)
    for option, node in _options("neck").items():
        if f"neck={option}" == chosen:
            continue
        given = {key: old[key] for key in node if OmegaConf.is_list(old.get(key))}
        trial = copy.deepcopy(cfg)
        with open_dict(trial), suppress(_UnknownError, _MisfitError, ConfigError):
            trial.model.backbone = {**node, "bottom_up": old.bottom_up, **given}
            _check_levels(trial.model)
            yield option


def _value(node: DictConfig, key: str) -> Any:
    """What stands at a key, or follows from it by a light function; None if nothing does."""
    try:
        return _evaluate(OmegaConf.select(node, key, throw_on_missing=True))
    except (OmegaConfBaseException, TypeError):
        raise _UnknownError from None


def _evaluate(value: Any) -> Any:
    if isinstance(value, ListConfig):
        return [_evaluate(item) for item in value]
    if not isinstance(value, DictConfig):
        return value
    module, _, function = target_name(value.get("_target_", "")).rpartition(".")
    arguments = {str(key): _evaluate(value[key]) for key in value if key != "_target_"}
    if module == levels.__name__:
        return getattr(levels, function)(**arguments)
    if (traits := _traits(value)) and traits.top_block:
        given = {key: arguments[key] for key in ("in_feature",) if key in arguments}
        return dataclasses.replace(traits.top_block, **given)
    if function == "named_shapes":  # whose names are cheap
        return level_names(arguments["strides"], arguments.get("top_block"))
    raise _UnknownError


def _options(group: str) -> dict[str, Any]:
    """The options of a group and their nodes."""
    place = PLACES[group]
    return {option: places.get(place) for option, places in read_nodes().options[group].items()}


def _name(node: Any) -> str:
    """The dotted name of a node's target; "" if it has none."""
    return target_name(node.get("_target_", "")) if isinstance(node, (dict, DictConfig)) else ""


def _chosen(group: str, node: DictConfig) -> str:
    """A node as the user chose it: by the option that makes the same."""

    def made(node: Any) -> list[str]:
        return [_name(node), _name(node.get("top_block"))]

    alike = {
        option: known for option, known in _options(group).items() if known and made(known) == made(node)
    }
    same = [option for option, known in alike.items() if known.get("norm") == node.get("norm")]
    return _choices(group, (same or [*alike])[:1]) or f"{PLACES[group]}._target_={_name(node)}"


def _choices(group: str, options: Iterable[str]) -> str:
    """Some options of a group, as one would write one of them; nothing if there are none."""
    told = "|".join(options)
    return told and f"{group}={told}"


def _list(values: Any) -> str:
    return f"[{', '.join(map(str, values))}]"
