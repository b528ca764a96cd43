"""Freeze parts of a timm model: stages, names, batch norms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from .errors import ConfigError
from .names import near

__all__ = ["batch_norms", "freeze_names", "freeze_stages", "put_frozen_in_eval_mode"]


def freeze_stages(model: nn.Module, stage: Mapping[str, int], stages: int) -> None:
    """Freeze the parameters of the first stages, the stem being the first."""
    for name, parameter in model.named_parameters():
        if stage[name] < stages:
            parameter.requires_grad_(False)


def freeze_names(model: nn.Module, patterns: Sequence[str]) -> None:
    """Freeze the parameters whose names match one of some patterns, as the shell's.

    Raises:
        ConfigError: a pattern that no parameter matches.
    """
    names = [name for name, _ in model.named_parameters()]
    for pattern in patterns:
        matches = {name for name in names if fnmatchcase(name, pattern)}
        if not matches:
            hint = near(pattern, names)
            raise ConfigError(
                f"freeze={list(patterns)}: no parameter that is used matches {pattern!r} "
                f"(as the shell's, such as 'blocks.0.*'); {hint}"
            )
        for name in matches:
            model.get_parameter(name).requires_grad_(False)


def batch_norms(model: nn.Module) -> list[nn.Module]:
    """All batch norms of a model, of one dimension or more, with an activation or without."""
    return [module for module in model.modules() if isinstance(module, _BatchNorm)]


def put_frozen_in_eval_mode(model: nn.Module) -> None:
    """Eval mode for each module whose parameters are all frozen, its dropout and statistics included."""
    for module in model.modules():
        parameters = list(module.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            module.eval()
