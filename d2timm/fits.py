"""Which choices go together, told of the tree alone and before anything is built.

Only light values are looked at: numbers, texts and what ``d2timm.levels`` makes of them. What takes more
to know is left to whoever builds the model.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any, NamedTuple

from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from . import levels
from .config import PLACES
from .errors import ConfigError
from .levels import TOP_BLOCKS, fused_top_block, level_names, level_strides, taken_strides
from .nodes import read_nodes

__all__ = ["check_fit"]

#: Where detectors say which levels they use -> what they do with them: anchors or pooling
USERS = {
    "proposal_generator.in_features": "proposal_generator.anchor_generator",
    "head_in_features": "anchor_generator",
    "roi_heads.box_in_features": "roi_heads.box_pooler",
    "roi_heads.mask_in_features": "roi_heads.mask_pooler",
    "roi_heads.keypoint_in_features": "roi_heads.keypoint_pooler",
    "sem_seg_head.input_shape": "sem_seg_head",
}
#: Necks all of whose levels feed the coarser ones, those of the top block as well in those that fuse them
UPWARD = ("PAFPN", "BiFPN")
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


def check_fit(cfg: DictConfig) -> None:
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
    if "proposal_generator" in model and "roi_heads" not in model:
        return  # it gives proposals only
    node = model.get("roi_heads")
    given = OmegaConf.to_container(node, resolve=False) if OmegaConf.is_dict(node) else node
    misfit = _misfit(model, given)
    if not misfit:
        return
    heads = (option for option, node in _options("roi_heads").items() if not _misfit(model, node))
    others = (option for option, node in _options("model").items() if not _misfit(node, given))
    fixes = filter(None, (_choices("roi_heads", heads), _choices("model", others)))
    raise ConfigError(f"{_told('model', model)} {misfit}: use {', or '.join(fixes)}")


def _misfit(model: Any, roi_heads: Any) -> str | None:
    """Why a detector does not go with ROI heads; None: it does."""
    if "proposal_generator" not in model:
        return "has no ROI heads" if roi_heads else None
    if not roi_heads:
        return "needs ROI heads"
    if "sem_seg_head" in model and roi_heads.get("mask_in_features", True) is None:
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
    """Raise _MisfitError unless the neck gives the levels that the detector uses, as it uses them."""
    neck = _neck(model)
    gives = f"{_told('neck', model.backbone)} gives {', '.join(neck.levels)}"
    for key, reader in USERS.items():
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
        used = {name for key in USERS for name in _value(model, key) or []}
        if used and (idle := _idle(neck, used)):
            raise _MisfitError(
                f"{_told('model', model)} uses {', '.join(n for n in neck.levels if n in used)} and {gives}: "
                f"parameters of {', '.join(idle)} would have no gradient",
                _without(model.backbone, neck, idle),
            )


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
    if _name(node) == "FPN" and top_block and top_block.in_feature not in (own[-1], features[-1]):
        raise _MisfitError(
            f"model.backbone.top_block makes more levels of {top_block.in_feature}, and the last one that "
            f"{_told('neck', node)} has is {own[-1]}",
            "give model.backbone.top_block=null",
        )
    fused = fused_top_block(top_block, _value(node, "num_layers"))
    return _Neck(
        levels=dict(zip(names, level_strides(taken, top_block), strict=True)),
        own=own,
        learned=names if fused or (top_block and top_block.learned) else own,
        feeding=names if _name(node) in UPWARD else names[len(own) - 1 :],
    )


def _fitting_necks(cfg: DictConfig) -> Iterator[str]:
    """Other options of the neck that would go with all else of a config, lists given to the neck included."""
    old = cfg.model.backbone
    chosen = _told("neck", old)
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
    name = _name(value)
    arguments = {str(key): _evaluate(value[key]) for key in value if key != "_target_"}
    if name in TOP_BLOCKS:
        return TOP_BLOCKS[name]._replace(**{k: v for k, v in arguments.items() if k == "in_feature"})
    if name in levels.__all__ and name.islower():
        return getattr(levels, name)(**arguments)
    if name == "named_shapes":  # of these names are light
        return level_names(arguments["strides"], arguments.get("top_block"))
    raise _UnknownError


def _options(group: str) -> dict[str, Any]:
    """The options of a group and their nodes."""
    place = PLACES[group]
    return {option: places.get(place) for option, places in read_nodes().options[group].items()}


def _name(node: Any) -> str:
    """The last part of a node's target, which is its dotted name or itself."""
    target = node.get("_target_", "") if isinstance(node, (dict, DictConfig)) else ""
    return str(getattr(target, "__qualname__", target)).rpartition(".")[2]


def _told(group: str, node: DictConfig) -> str:
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
