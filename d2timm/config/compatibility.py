"""Check that the detector, neck and ROI heads of a config fit together, before anything is built.

The check computes cheap values only: numbers, strings, what ``d2timm.modeling.levels`` derives from them, and
the traits that classes declare. It accepts all others; if they are wrong, the model cannot be built.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from ..errors import ConfigError
from ..modeling import levels
from ..modeling.levels import fused_top_block, level_names, level_strides, taken_strides
from ..modeling.traits import TopBlock, Traits
from ..utils.targets import resolve_target
from ..utils.values import check_value, fits
from .groups import describe_option, option_nodes, read_nodes, target_of

__all__ = ["check_compatibility"]

#: Key of a norm -> key of the widths of the convolutions that it follows
NORMS = {
    "backbone.norm": "backbone.out_channels",
    "head.norm": "head.conv_dims",
    "sem_seg_head.norm": "sem_seg_head.conv_dims",
    "roi_heads.box_head.conv_norm": "roi_heads.box_head.conv_dims",
    "roi_heads.box_heads.0.conv_norm": "roi_heads.box_heads.0.conv_dims",
    "roi_heads.mask_head.conv_norm": "roi_heads.mask_head.conv_dims",
    "roi_heads.mask_heads.0.conv_norm": "roi_heads.mask_heads.0.conv_dims",
}


class _UnknownValueError(Exception):
    """A value is not cheap to compute."""


class _MismatchError(Exception):
    """Parts do not fit together: the problem, and a fix that keeps the neck."""


class _NeckLevels(NamedTuple):
    """The levels of a neck, fine to coarse."""

    strides: dict[str, int]  # name -> stride of all levels
    own: list[str]  # levels that the top block does not add
    learned: list[str]  # levels with parameters
    feeding: list[str]  # levels from which the next coarser one is computed


def check_compatibility(cfg: DictConfig) -> None:
    """Check that detector, neck and ROI heads of a config fit together.

    Args:
        cfg: the tree, as a recipe or composed groups give it.

    Raises:
        ConfigError: they do not; the message says why, and names the options that fit.
    """
    model = cfg.get("model")
    if not OmegaConf.is_dict(model):
        return
    _check_roi_heads(model)
    _check_group_norms(model)
    with suppress(_UnknownValueError):
        try:
            _check_levels(model)
        except _MismatchError as error:
            necks = _join_options("neck", _fitting_necks(cfg))
            problem, fix = error.args
            raise ConfigError(f"{problem}; use {necks}, or {fix}" if necks else f"{problem}; {fix}") from None


def _check_roi_heads(model: DictConfig) -> None:
    """Raise ConfigError if a detector lacks the ROI heads that it needs, or cannot use those that it has."""
    node = model.get("roi_heads")
    roi_heads = OmegaConf.to_container(node, resolve=False) if OmegaConf.is_dict(node) else node
    problem = _roi_heads_problem(model, roi_heads)
    if not problem:
        return
    heads = (name for name, node in option_nodes("roi_heads").items() if not _roi_heads_problem(model, node))
    models = (name for name, node in option_nodes("model").items() if not _roi_heads_problem(node, roi_heads))
    fixes = filter(None, (_join_options("roi_heads", heads), _join_options("model", models)))
    raise ConfigError(f"{describe_option('model', model)} {problem}: use {', or '.join(fixes)}")


def _roi_heads_problem(model: Any, roi_heads: Any) -> str | None:
    """Why a detector does not fit ROI heads; None if it does, or does not declare which ones it needs."""
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
    """Raise ConfigError if detectron2's group norm cannot divide a width into its 32 groups."""
    for norm, width in NORMS.items():
        with suppress(_UnknownValueError):
            widths = _value(model, width, int | Sequence[int]) if _value(model, norm, Any) == "GN" else []
            for channels in widths if isinstance(widths, list) else [widths]:
                if channels % 32:
                    raise ConfigError(
                        f"model.{width}={channels} and model.{norm}=GN: group norm needs multiples of 32"
                    )


def _check_levels(model: DictConfig) -> None:
    """Raise _MismatchError unless the neck has the levels that the detector uses, and no idle ones."""
    neck = _neck_levels(model)
    has = f"{describe_option('neck', model.backbone)} has {', '.join(neck.strides)}"
    users = dict(_level_users(model))
    for key, consumer in users.items():
        with suppress(_UnknownValueError):
            names = _names(model, key)
            missing = [name for name in names if name not in neck.strides]
            if missing:
                raise _MismatchError(
                    f"model.{key}={_bracketed(names)}: {has}, not {', '.join(missing)}",
                    f"leave model.{key} out, it follows from the neck",
                )
            if names and consumer:
                _check_consumer(model, key, consumer, {name: neck.strides[name] for name in names})
    with suppress(_UnknownValueError):
        used = {name for key in users for name in _names(model, key)}
        if used and (idle := _idle_levels(neck, used)):
            in_use = ", ".join(name for name in neck.strides if name in used)
            raise _MismatchError(
                f"{describe_option('model', model)} uses {in_use} and {has}: parameters of {', '.join(idle)} "
                "would have no gradient",
                _fix_for_idle(model.backbone, neck, idle),
            )


def _level_users(model: DictConfig) -> Iterator[tuple[str, str]]:
    """(key that names levels of the neck, key of the anchors or pooler for them or ""), as parts declare."""
    parts = {f"{key!s}.": model.get(key) for key in model if key not in ("_target_", "backbone")}
    for prefix, node in {"": model, **parts}.items():
        if traits := _traits(node):
            for key, consumer in traits.levels.items():
                yield f"{prefix}{key}", consumer and f"{prefix}{consumer}"


def _traits(node: Any) -> Traits | None:
    """What the class of a node declares; None if it declares nothing, or the node has no ``_target_``."""
    name = target_of(node)
    if not name:
        return None
    known = read_nodes().traits
    if name in known:
        return known[name]
    from ..modeling.detectron2_traits import traits_of  # only for a class of the user's

    target = node["_target_"]
    with suppress(ConfigError):  # the builder reports a wrong name
        return traits_of(resolve_target(target) if isinstance(target, str) else target)
    return None


def _idle_levels(neck: _NeckLevels, used: set[str]) -> list[str]:
    """Levels with parameters on which no used level depends."""
    idle, needed = [], False
    for name in reversed(neck.strides):
        needed = name in used or (needed and name in neck.feeding)
        if name in neck.learned and not needed:
            idle.append(name)
    return idle[::-1]


def _fix_for_idle(node: DictConfig, neck: _NeckLevels, idle: list[str]) -> str:
    """The override with which a neck does not compute its idle levels."""
    if not set(idle) & set(neck.own):
        return "set model.backbone.top_block=null"
    key = "scale_factors" if "scale_factors" in node else "in_features"
    entries = _value(node, key, Sequence[Any])
    values = [value for name, value in zip(neck.own, entries, strict=True) if name not in idle]
    return f"set model.backbone.{key}=[{','.join(map(str, values))}]"


def _check_consumer(model: DictConfig, key: str, consumer: str, used: dict[str, int]) -> None:
    """Raise _MismatchError if anchors or a pooler are made for other levels than those at ``key``."""
    strides, names = list(used.values()), ", ".join(used)
    for name, expected in {"strides": strides, "scales": [1.0 / stride for stride in strides]}.items():
        with suppress(_UnknownValueError):
            values = _value(model, f"{consumer}.{name}", Sequence[float] | None)
            if values is not None and values != expected:
                raise _MismatchError(
                    f"model.{consumer}.{name}={_bracketed(values)}: {names} have {_bracketed(expected)}",
                    f"leave it and model.{key} out, both follow from the neck",
                )
    for name in ("sizes", "aspect_ratios"):
        with suppress(_UnknownValueError):
            values = _value(model, f"{consumer}.{name}", Sequence[Any] | None)
            # a flat list, and a list of one entry, apply to every level
            if values and isinstance(values[0], list) and len(values) not in (1, len(used)):
                raise _MismatchError(
                    f"model.{consumer}.{name} has {len(values)} entries for {len(used)} levels, {names}",
                    "give one entry for each level, or one for all",
                )


def _neck_levels(model: DictConfig) -> _NeckLevels:
    """The levels of a neck with ``in_features`` and, if any, a ``top_block``, as FPN has them."""
    node = model.get("backbone")
    if not OmegaConf.is_dict(node) or "in_features" not in node:
        raise _UnknownValueError
    remaps = _value(node, "bottom_up.remaps", Sequence[str])
    strides = _value(node, "bottom_up.strides", Sequence[int])
    if len(set(remaps)) < len(remaps) or len(remaps) != len(strides):
        raise _UnknownValueError  # TimmBackbone has the better error
    features = _value(node, "in_features", Sequence[str])
    top_block = _value(node, "top_block", TopBlock | None)
    factors = _value(node, "scale_factors", Sequence[float] | None)
    taken = taken_strides(features, remaps, strides, scale_factors=factors)
    own, names = level_names(taken), level_names(taken, top_block)
    traits = _traits(node) or Traits()
    if top_block and not traits.own_last_level and top_block.in_feature not in (own[-1], features[-1]):
        raise _MismatchError(
            f"model.backbone.top_block starts from {top_block.in_feature}, and the last level of "
            f"{describe_option('neck', node)} is {own[-1]}",
            "set model.backbone.top_block=null",
        )
    fused = fused_top_block(top_block, _value(node, "num_layers", int | None))
    return _NeckLevels(
        strides=dict(zip(names, level_strides(taken, top_block), strict=True)),
        own=own,
        learned=names if fused or (top_block and top_block.learned) else own,
        feeding=names if traits.fuses_upwards else names[len(own) - 1 :],
    )


def _fitting_necks(cfg: DictConfig) -> Iterator[str]:
    """Other options of the neck that fit the rest of a config, including lists that are set in its neck."""
    old = cfg.model.backbone
    current = describe_option("neck", old)
    for option, node in option_nodes("neck").items():
        if f"neck={option}" == current:
            continue
        lists = {key: old[key] for key in node if OmegaConf.is_list(old.get(key))}
        trial = copy.deepcopy(cfg)
        with open_dict(trial), suppress(_UnknownValueError, _MismatchError, ConfigError):
            trial.model.backbone = {**node, "bottom_up": old.bottom_up, **lists}
            _check_levels(trial.model)
            yield option


def _value(node: DictConfig, key: str, hint: Any) -> Any:
    """The value at a dotted key, computed if it is a node of a cheap function; None if the key is missing.

    Raises:
        _UnknownValueError: it is not cheap to compute, or of another type, which the check of types reports.
    """
    try:
        value = _evaluate(OmegaConf.select(node, key, throw_on_missing=True))
    except (OmegaConfBaseException, TypeError):
        raise _UnknownValueError from None
    if not fits(value, hint):
        raise _UnknownValueError
    return value


def _names(model: DictConfig, key: str) -> list[str]:
    names = _value(model, key, Any) or []
    check_value(names, Sequence[str], f"model.{key}")
    return list(names)


def _evaluate(value: Any) -> Any:
    if isinstance(value, ListConfig):
        return [_evaluate(item) for item in value]
    if not isinstance(value, DictConfig):
        return value
    module, _, function = target_of(value).rpartition(".")
    arguments = {str(key): _evaluate(value[key]) for key in value if key != "_target_"}
    if module == levels.__name__ and function in levels.__all__:
        return getattr(levels, function)(**arguments)
    if (traits := _traits(value)) and traits.top_block:
        start = arguments.get("in_feature", traits.top_block.in_feature)
        return dataclasses.replace(traits.top_block, in_feature=start)
    if function == "named_shapes":  # importing it takes torch; its names do not
        return level_names(arguments["strides"], arguments.get("top_block"))
    raise _UnknownValueError


def _join_options(group: str, options: Iterable[str]) -> str:
    """``group=a|b|c``; "" if there are no options."""
    names = "|".join(options)
    return names and f"{group}={names}"


def _bracketed(values: Any) -> str:
    return f"[{', '.join(map(str, values if isinstance(values, list) else [values]))}]"
