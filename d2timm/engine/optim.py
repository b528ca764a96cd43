"""Optimizers for timm backbones: timm's, with clipped gradients and decay where decay belongs."""

from __future__ import annotations

import copy
import inspect
import logging
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from omegaconf import DictConfig
from timm.optim import (
    create_optimizer_v2,
    get_optimizer_class,
    get_optimizer_info,
    list_optimizers,
    param_groups_weight_decay,
)
from torch import nn

from ..backbone.timm_backbone import TimmBackbone
from ..config.build import instantiate
from ..errors import ConfigError
from ..utils.checks import suggest
from .schedules import images_per_step

__all__ = ["build_optimizer", "create_optimizer", "learning_rate", "param_groups", "scaled_rate"]

logger = logging.getLogger(__name__)


def param_groups(
    model: nn.Module,
    weight_decay: float,
    lr: float = 1e-4,
    layer_decay: float = 1.0,
    num_layers: int | None = None,
    decay_biases: bool = False,
) -> list[dict[str, Any]]:
    """Groups of parameters, each with a learning rate and a weight decay.

    No weight decay for norms, biases and what timm exempts by name: position embeddings, class tokens
    and the like, which each timm model lists itself. With ``decay_biases`` it is as in detectron2 and in
    mmdetection's Swin: biases that are not of norms decay, and so do scales of layers.

    The learning rate decays from the heads down (BEiT, https://arxiv.org/abs/2106.08254; ViTDet,
    https://arxiv.org/abs/2203.16527): the last layer of a backbone has ``lr * layer_decay``, the one below
    it ``lr * layer_decay**2``, down to the stem. What the layers are, timm's ``group_matcher`` tells. All
    that is not timm's has ``lr``: neck, heads, and the layers that resample the backbone's features.

    Args:
        model: a detector; parameters that require no gradient are left out.
        weight_decay: >= 0.
        lr: learning rate of the heads where it decays; otherwise groups have none of their own.
        layer_decay: 0 < layer_decay <= 1; 1: none.
        num_layers: the layers above the stem are put together evenly into so many, whose rates differ, as
            ConvNeXt's detectors have it (https://arxiv.org/abs/2201.03545), three blocks in each; None: all.
        decay_biases: whether biases decay.

    Raises:
        ConfigError: a layer decay, or a number of layers, that is none.
    """
    if not 0 < layer_decay <= 1:
        raise ConfigError(f"optimizer.params.layer_decay={layer_decay}: 0 < layer_decay <= 1; 1 is none")
    if num_layers is not None and num_layers < 1:
        raise ConfigError(
            f"optimizer.params.num_layers={num_layers}: >= 1; null: each layer has its own rate"
        )
    exempt = {
        f"{path}.{name}" if path else name
        for path, module in model.named_modules()
        if hasattr(module, "no_weight_decay")
        for name in module.no_weight_decay()
    }
    groups: list[dict[str, Any]]
    if decay_biases:
        groups = _all_but_norms(model, weight_decay, exempt)
    else:
        groups = param_groups_weight_decay(model, weight_decay, no_weight_decay_list=exempt)
    return groups if layer_decay == 1 else _by_layer(model, groups, lr, layer_decay, num_layers)


def _all_but_norms(model: nn.Module, weight_decay: float, exempt: Collection[str]) -> list[dict[str, Any]]:
    """Weight decay for all but some names and norms, which are told by their weight of one dimension."""
    without = {parameter for name, parameter in model.named_parameters() if name in exempt}
    for module in model.modules():
        weight = getattr(module, "weight", None)
        if isinstance(weight, nn.Parameter) and weight.ndim == 1:
            without.update(module.parameters(recurse=False))
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [
        {"params": [p for p in trained if p in without], "weight_decay": 0.0},
        {"params": [p for p in trained if p not in without], "weight_decay": weight_decay},
    ]


def _by_layer(
    model: nn.Module, groups: list[dict[str, Any]], lr: float, layer_decay: float, num_layers: int | None
) -> list[dict[str, Any]]:
    """Divide groups further, by layer."""
    depth = _depth(model, num_layers)
    divided = []
    for group in groups:
        layers: dict[int, list[nn.Parameter]] = {}
        for parameter in group["params"]:
            layers.setdefault(depth.get(parameter, 0), []).append(parameter)
        divided += [
            {**group, "params": parameters, "lr": lr * layer_decay**below}
            for below, parameters in sorted(layers.items())
        ]
    return divided


def _depth(model: nn.Module, num_layers: int | None) -> dict[nn.Parameter, int]:
    """How many layers below the heads each parameter of a timm model is, the last layer being 1."""
    depth = {}
    for backbone in model.modules():
        if isinstance(backbone, TimmBackbone):
            layer = backbone.stage_of_parameters(coarse=False)
            last = max(layer.values())
            if num_layers and num_layers < last:
                layer = {name: math.ceil(number * num_layers / last) for name, number in layer.items()}
                last = num_layers
            for name, parameter in backbone.model.named_parameters():
                depth[parameter] = last + 1 - layer[name]
    return depth


def create_optimizer(
    params: list[dict[str, Any]],
    opt: str = "adamw",
    lr: float = 1e-4,
    weight_decay: float = 0.05,
    clip_norm: float | None = 1.0,
    **options: Any,
) -> torch.optim.Optimizer:
    """Make an optimizer by timm's name for it.

    Args:
        params: parameter groups.
        opt: a name that ``timm.optim.list_optimizers`` gives.
        lr: learning rate, > 0.
        weight_decay: for groups that have none of their own, >= 0.
        clip_norm: the norm of all gradients together is clipped to this before each step; None: never.
        options: further arguments of that optimizer, such as ``betas``; None: its own default, or timm's.

    Raises:
        ConfigError: timm has no such optimizer, it cannot be had here, or an option is none of its own.
    """
    options = {
        key: tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else value
        for key, value in options.items()
        if value is not None
    }
    _check(opt, options)
    try:
        optimizer = create_optimizer_v2(params, opt=opt, lr=lr, weight_decay=weight_decay, **options)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"optimizer.opt={opt}: {' '.join(str(error).split())}") from error
    if clip_norm is not None:
        # A hook of the step, because a gradient scaler unscales gradients only just before it
        def clip(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            nn.utils.clip_grad_norm_(parameters, clip_norm)

        # timm's Lookahead wraps an optimizer whose step its own step calls
        getattr(optimizer, "_base_optimizer", optimizer).register_step_pre_hook(clip)
    return optimizer


def build_optimizer(cfg: DictConfig, model: nn.Module) -> torch.optim.Optimizer:
    """Build the optimizer of a config for a model.

    With ``train.reference_batch_size`` the learning rate is scaled from that many images a step to those
    of this run. The tree is not changed.
    """
    node = copy.deepcopy(cfg.optimizer)
    node._set_parent(cfg)  # its interpolations refer to the tree
    node.params.model = model
    if cfg.train.get("reference_batch_size"):
        node.lr, formula = learning_rate(cfg)
        logger.info("Learning rate %s", formula)
    optimizer: torch.optim.Optimizer = instantiate(node)
    return optimizer


def learning_rate(cfg: DictConfig) -> tuple[float, str]:
    """The learning rate of a run, scaled to the images of its steps, and the formula that gives it."""
    return scaled_rate(
        cfg.optimizer.lr,
        cfg.optimizer.get("opt"),
        images_per_step(cfg),
        cfg.train.get("reference_batch_size"),
    )


def scaled_rate(lr: float, opt: str | None, images: int, reference: int | None) -> tuple[float, str]:
    """A learning rate for steps of so many images, and how it comes about.

    In proportion to the images for SGD and its kin, whose steps are as large as the gradients (Goyal et al.,
    https://arxiv.org/abs/1706.02677); by the square root for all others, which divide by the size of
    gradients in some way, as timm's own training script has it.

    Args:
        lr: of steps of ``reference`` images.
        opt: timm's name of the optimizer; None: another, taken for SGD.
        images: of a step.
        reference: images that ``lr`` is meant for; None: it is taken as it is.

    Raises:
        ConfigError: as ``create_optimizer``.
    """
    if not reference:
        return lr, f"{lr:g}"
    ratio, told = images / reference, f"{images}/{reference}"
    if opt is not None and _is_adaptive(opt):
        ratio, told = math.sqrt(ratio), f"sqrt({told})"
    return lr * ratio, f"{lr:g} x {told} = {lr * ratio:g}"


def _is_adaptive(opt: str) -> bool:
    """Whether steps are not in proportion to gradients; SGD and its kin take ``nesterov`` and no betas."""
    _check(opt, {})
    name = opt.lower().removeprefix("lookahead_")
    takes = inspect.signature(get_optimizer_class(name, bind_defaults=False)).parameters
    return get_optimizer_info(name).has_betas or "nesterov" not in takes


def _check(opt: str, options: Mapping[str, Any]) -> None:
    """Raise ConfigError unless timm has the optimizer and it takes the options."""
    known = list(map(str, list_optimizers()))
    name = opt.lower().removeprefix("lookahead_")
    if name not in known:
        raise ConfigError(f"optimizer.opt={opt!r} is not an optimizer of timm: {suggest(opt, known)}")
    if get_optimizer_info(name).second_order:
        raise ConfigError(f"optimizer.opt={opt} needs second derivatives, which detectors do not give")
    try:
        kind = get_optimizer_class(name, bind_defaults=False)
    except (AssertionError, ImportError) as error:  # timm's own words on what is missing
        raise ConfigError(f"optimizer.opt={opt}: {error}") from None
    takes = [*inspect.signature(kind).parameters][1:]
    for key in options:
        if key not in takes:
            takes_not = f"optimizer.{key}={options[key]}: {opt} takes {', '.join(takes)}"
            raise ConfigError(f"{takes_not}; leave it out or set it to null")
