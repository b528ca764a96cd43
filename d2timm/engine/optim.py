"""timm's optimizers with gradient clipping, selective weight decay and layer-wise learning rates."""

from __future__ import annotations

import copy
import inspect
import logging
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Any, TypeAlias

import torch
from omegaconf import DictConfig
from torch import nn

from ..backbone.timm_backbone import TimmBackbone
from ..config.build import instantiate
from ..errors import ConfigError
from ..utils.bounds import Bounds
from ..utils.checks import suggest
from ..utils.imports import hidden
from ..utils.targets import config_target
from ..utils.text import one_line
from .schedules import images_per_step

with hidden("torch.distributed.tensor"):  # Muon knows it, and it imports SymPy, which takes long
    from timm.optim import (
        create_optimizer_v2,
        get_optimizer_class,
        get_optimizer_info,
        list_optimizers,
        param_groups_weight_decay,
    )

__all__ = [
    "build_optimizer",
    "create_optimizer",
    "learning_rate",
    "param_groups",
    "scaled_rate",
]

logger = logging.getLogger(__name__)

NotNegative: TypeAlias = Annotated[float, Bounds(at_least=0)]
Positive: TypeAlias = Annotated[float, Bounds(above=0)]


@config_target
def param_groups(
    model: nn.Module,
    weight_decay: NotNegative,
    lr: NotNegative = 1e-4,
    layer_decay: float = 1.0,
    num_layers: int | None = None,
    decay_biases: bool = False,
    backbone_factor: Positive = 1.0,
) -> list[dict[str, Any]]:
    """Divide the parameters of a model into groups with a weight decay and, optionally, a learning rate.

    Norms, biases and the parameters that a timm model itself exempts, such as position embeddings and class
    tokens, have no weight decay. With ``decay_biases``, as in detectron2 and in mmdetection's Swin, biases
    outside of norms and scales of layers do have weight decay.

    With ``layer_decay`` the learning rate decays from the heads down (BEiT, https://arxiv.org/abs/2106.08254;
    ViTDet, https://arxiv.org/abs/2203.16527): the last layer of a backbone has ``lr * layer_decay``, the one
    below it ``lr * layer_decay**2``, and so on down to the stem. timm's ``group_matcher`` defines the layers.
    Parameters outside of the timm model have ``lr``: neck, heads, and layers that resample its features.

    Args:
        model: a detector; frozen parameters are left out.
        weight_decay: >= 0.
        lr: learning rate of the heads; unless rates differ, groups have no learning rate of their own.
        layer_decay: 0 < layer_decay <= 1; 1 disables it.
        num_layers: merge the layers above the stem evenly into this many, as ConvNeXt's detectors do
            (https://arxiv.org/abs/2201.03545) with three blocks in each; None: each layer has its own rate.
        decay_biases: whether biases have weight decay.
        backbone_factor: factor of the learning rate of the timm model, > 0.

    Raises:
        ConfigError: ``layer_decay`` or ``num_layers`` is out of range.
    """
    if not 0 < layer_decay <= 1:
        raise ConfigError(f"optimizer.params.layer_decay={layer_decay}: 0 < layer_decay <= 1; 1 disables it")
    if num_layers is not None and num_layers < 1:
        raise ConfigError(
            f"optimizer.params.num_layers={num_layers}: must be >= 1, or null for a rate per layer"
        )
    exempt = {
        f"{path}.{name}" if path else name
        for path, module in model.named_modules()
        if hasattr(module, "no_weight_decay")
        for name in module.no_weight_decay()
    }
    groups: list[dict[str, Any]]
    if decay_biases:
        groups = _groups_with_biases(model, weight_decay, exempt)
    else:
        groups = param_groups_weight_decay(model, weight_decay, no_weight_decay_list=exempt)
    if layer_decay == backbone_factor == 1:
        return groups
    return _by_layer(model, groups, lr, layer_decay, num_layers, backbone_factor)


def _groups_with_biases(
    model: nn.Module, weight_decay: float, exempt: Collection[str]
) -> list[dict[str, Any]]:
    """Groups without and with weight decay; norms are the modules with a weight of one dimension."""
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
    model: nn.Module,
    groups: list[dict[str, Any]],
    lr: float,
    layer_decay: float,
    num_layers: int | None,
    factor: float,
) -> list[dict[str, Any]]:
    """Divide groups by layer, each layer with its own learning rate."""
    depth = _depth(model, num_layers)
    divided = []
    for group in groups:
        layers: dict[int, list[nn.Parameter]] = {}
        for parameter in group["params"]:
            layers.setdefault(depth.get(parameter, 0), []).append(parameter)
        divided += [
            {**group, "params": parameters, "lr": lr * layer_decay**below * (factor if below else 1)}
            for below, parameters in sorted(layers.items())
        ]
    return divided


def _depth(model: nn.Module, num_layers: int | None) -> dict[nn.Parameter, int]:
    """Return the depth below the heads of each parameter of a timm model; its last layer has depth 1."""
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


@config_target
def create_optimizer(
    params: list[dict[str, Any]],
    opt: str = "adamw",
    lr: NotNegative = 1e-4,
    weight_decay: NotNegative = 0.05,
    clip_norm: Positive | None = 1.0,
    fused: bool | None = None,
    **options: Any,
) -> torch.optim.Optimizer:
    """Create a timm optimizer.

    Args:
        params: parameter groups.
        opt: a name from ``timm.optim.list_optimizers``.
        lr: learning rate, >= 0.
        weight_decay: weight decay of groups without their own, >= 0.
        clip_norm: before each step, the norm of all gradients together is clipped to this, > 0; None: no
            clipping.
        fused: update all parameters in one kernel, which takes about a third of the time; None: where the
            optimizer can.
        options: further arguments of the optimizer, such as ``betas``; None: the default value.

    Raises:
        ConfigError: timm has no such optimizer, it is not available here, or it does not take an option.
    """
    options = {
        key: tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else value
        for key, value in options.items()
        if value is not None
    }
    if fused:
        options["fused"] = True
    _check_optimizer(opt, options)
    if fused is None and "fused" in _takes(opt) and all(map(_has_fused_kernels, _parameters(params))):
        options["fused"] = True
    try:
        optimizer = create_optimizer_v2(params, opt=opt, lr=lr, weight_decay=weight_decay, **options)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"optimizer.opt={opt}: {one_line(error)}") from error
    if clip_norm is not None:
        _clip_before_steps(optimizer, clip_norm)
    return optimizer


def _parameters(groups: list[dict[str, Any]]) -> list[torch.Tensor]:
    return [parameter for group in groups for parameter in group["params"]]


def _has_fused_kernels(parameter: torch.Tensor) -> bool:
    return parameter.device.type in ("cpu", "cuda") and parameter.is_floating_point()


def _clip_before_steps(optimizer: torch.optim.Optimizer, clip_norm: float) -> None:
    """Clip gradients in a hook of the step, because a gradient scaler unscales them right before the step."""

    def clip(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        scale = getattr(optimizer, "grad_scale", None)  # fused optimizers unscale gradients in their step
        limit: Any = clip_norm if scale is None else clip_norm * scale
        nn.utils.clip_grad_norm_(_parameters(optimizer.param_groups), limit)

    # timm's Lookahead wraps an optimizer, and its own step calls the step of that one
    getattr(optimizer, "_base_optimizer", optimizer).register_step_pre_hook(clip)


def build_optimizer(cfg: DictConfig, model: nn.Module, factor: float = 1.0) -> torch.optim.Optimizer:
    """Build the optimizer of a config for a model.

    With ``train.reference_batch_size`` the learning rate is scaled to the images per step of this run.

    Args:
        cfg: the tree, which is not changed.
        model: the model whose parameters are optimized.
        factor: factor of the learning rate, > 0.

    Raises:
        ConfigError: as ``create_optimizer`` and ``param_groups``.
    """
    node = copy.deepcopy(cfg.optimizer)
    node._set_parent(cfg)  # interpolations in the node refer to the tree
    node.params.model = model
    if cfg.train.get("reference_batch_size"):
        node.lr, formula = learning_rate(cfg)
        logger.info("Learning rate %s", formula)
    if factor != 1:
        node.lr = node.lr * factor
        logger.info("Learning rate %g, lowered by %g because the loss was not finite", node.lr, factor)
    optimizer: torch.optim.Optimizer = instantiate(node)
    return optimizer


def learning_rate(cfg: DictConfig) -> tuple[float, str]:
    """Return the learning rate of a run, scaled to its images per step, and the formula as text."""
    return scaled_rate(
        cfg.optimizer.lr,
        cfg.optimizer.get("opt"),
        images_per_step(cfg),
        cfg.train.get("reference_batch_size"),
    )


def scaled_rate(lr: float, opt: str | None, images: int, reference: int | None) -> tuple[float, str]:
    """Scale a learning rate to the number of images per step.

    The rate is proportional to the images for SGD and its variants, whose steps are proportional to the
    gradients (Goyal et al., https://arxiv.org/abs/1706.02677). For adaptive optimizers, which normalize the
    gradients, it is proportional to the square root of the images, as in timm's training script.

    Args:
        lr: learning rate for ``reference`` images per step.
        opt: timm's name of the optimizer; None: an optimizer of another library, scaled like SGD.
        images: images per step, >= 1.
        reference: images per step that ``lr`` is meant for; None: no scaling.

    Returns:
        (rate, formula), such as ``(0.005, "0.01 x sqrt(2/8) = 0.005")``.

    Raises:
        ConfigError: timm has no such optimizer.
    """
    if not reference:
        return lr, f"{lr:g}"
    factor, formula = images / reference, f"{images}/{reference}"
    if opt is not None and _is_adaptive(opt):
        factor, formula = math.sqrt(factor), f"sqrt({formula})"
    return lr * factor, f"{lr:g} x {formula} = {lr * factor:g}"


def _is_adaptive(opt: str) -> bool:
    """Whether an optimizer normalizes gradients; SGD and its variants take ``nesterov`` and no betas."""
    _check_optimizer(opt, {})
    name = opt.lower().removeprefix("lookahead_")
    takes = inspect.signature(get_optimizer_class(name, bind_defaults=False)).parameters
    return get_optimizer_info(name).has_betas or "nesterov" not in takes


def _check_optimizer(opt: str, options: Mapping[str, Any]) -> None:
    """Raise ConfigError unless timm has the optimizer and it takes the options."""
    known = list(map(str, list_optimizers()))
    name = opt.lower().removeprefix("lookahead_")
    if name not in known:
        raise ConfigError(f"optimizer.opt={opt} is not a timm optimizer: {suggest(opt, known)}")
    if get_optimizer_info(name).second_order:
        raise ConfigError(
            f"optimizer.opt={opt} needs second derivatives, which are not available for detectors"
        )
    takes = _takes(opt)
    for key in options:
        if key not in takes:
            raise ConfigError(
                f"optimizer.{key}={options[key]}: remove it or set it to null; {opt} takes {', '.join(takes)}"
            )


def _takes(opt: str) -> list[str]:
    """The names of the arguments of an optimizer that timm has, except for the parameters."""
    try:
        kind = get_optimizer_class(opt.lower().removeprefix("lookahead_"), bind_defaults=False)
    except (AssertionError, ImportError) as error:  # timm says which package is missing
        raise ConfigError(f"optimizer.opt={opt}: {error}") from None
    return [*inspect.signature(kind).parameters][1:]
