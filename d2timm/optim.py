"""Optimizers for timm backbones: timm's, with clipped gradients and decay where decay belongs."""

from __future__ import annotations

from typing import Any

import torch
from timm.optim import create_optimizer_v2, list_optimizers, param_groups_weight_decay
from torch import nn

from .errors import ConfigError
from .names import near

__all__ = ["build_optimizer", "param_groups"]


def param_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Two groups: with weight decay, and without for norms, biases and what timm exempts by name.

    The last are position embeddings, class tokens and the like, which each timm model lists itself.

    Args:
        model: a detector; parameters that require no gradient are left out.
        weight_decay: of the first group, >= 0.
    """
    exempt = {
        f"{path}.{name}" if path else name
        for path, module in model.named_modules()
        if hasattr(module, "no_weight_decay")
        for name in module.no_weight_decay()
    }
    groups: list[dict[str, Any]] = param_groups_weight_decay(model, weight_decay, no_weight_decay_list=exempt)
    return groups


def build_optimizer(
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
        options: further arguments of that optimizer, such as ``betas``.

    Raises:
        ConfigError: timm has no such optimizer.
    """
    options = {k: tuple(v) if isinstance(v, (list, tuple)) else v for k, v in options.items()}
    known = list_optimizers()
    if opt.lower().removeprefix("lookahead_") not in known:
        raise ConfigError(f"optimizer.opt={opt!r} is not an optimizer of timm: {near(opt, map(str, known))}")
    optimizer = create_optimizer_v2(params, opt=opt, lr=lr, weight_decay=weight_decay, **options)
    if clip_norm is not None:
        # A hook of the step, because a gradient scaler unscales gradients only just before it
        def clip(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            nn.utils.clip_grad_norm_(parameters, clip_norm)

        # timm's Lookahead wraps an optimizer whose step its own step calls
        getattr(optimizer, "_base_optimizer", optimizer).register_step_pre_hook(clip)
    return optimizer
