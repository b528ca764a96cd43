"""Freeze parts of a timm model: its first stages, parameters by name, batch norms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from timm.models import group_parameters
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..errors import ConfigError
from ..utils.checks import suggest
from .meta import TimmModel
from .pruning import prune, reached_parameters
from .spec import BackboneSpec

__all__ = ["batch_norms", "freeze_names", "freeze_stages", "put_frozen_in_eval_mode", "stage_of_parameters"]


def freeze_stages(model: nn.Module, stage: Mapping[str, int], stages: int) -> None:
    """Freeze the parameters of the first stages.

    Args:
        model: the model, changed in place.
        stage: parameter name -> number of its stage, 0 for the stem.
        stages: number of stages to freeze, >= 0, the stem included.
    """
    for name, parameter in model.named_parameters():
        if stage[name] < stages:
            parameter.requires_grad_(False)


def freeze_names(model: nn.Module, patterns: Sequence[str]) -> None:
    """Freeze the parameters whose names match a pattern.

    Args:
        model: the model, changed in place.
        patterns: shell patterns, such as ``blocks.0.*``; case matters.

    Raises:
        ConfigError: a pattern matches no parameter.
    """
    names = [name for name, _ in model.named_parameters()]
    for pattern in patterns:
        matches = {name for name in names if fnmatchcase(name, pattern)}
        if not matches:
            raise ConfigError(
                f"freeze={list(patterns)}: {pattern!r} matches no used parameter (it is a shell pattern, "
                f"such as 'blocks.0.*'); {suggest(pattern, names)}"
            )
        for name in matches:
            model.get_parameter(name).requires_grad_(False)


def batch_norms(model: nn.Module) -> list[nn.Module]:
    """Return all batch norms of a model, of any dimension, with or without a fused activation."""
    return [module for module in model.modules() if isinstance(module, _BatchNorm)]


def put_frozen_in_eval_mode(model: nn.Module) -> None:
    """Put each module whose parameters are all frozen in eval mode, including its dropout and statistics."""
    for module in model.modules():
        parameters = list(module.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            module.eval()


def stage_of_parameters(
    model: TimmModel, spec: BackboneSpec, indices: tuple[int, ...], coarse: bool
) -> dict[str, int]:
    """Number the parameters of a model by depth.

    timm's ``group_matcher`` defines the groups. If the model has none, or none for stages, its features
    define them: each group begins after the previous feature.

    Args:
        model: a model that ``spec.create()`` created, pruned to ``indices``.
        spec: the specification of the model.
        indices: indices of the used features, each >= 0.
        coarse: number stages; otherwise layers, the finest groups that timm defines.

    Returns:
        Parameter name -> number, consecutive from 0 for the stem.
    """
    try:
        matcher = model.group_matcher(coarse=coarse)
    except (AttributeError, AssertionError):
        return _group_by_feature(spec, indices)
    number: dict[str, int] = group_parameters(model, matcher, reverse=True)
    order = {stage: i for i, stage in enumerate(sorted(set(number.values())))}
    return {name: order[stage] for name, stage in number.items()}


def _group_by_feature(spec: BackboneSpec, indices: tuple[int, ...]) -> dict[str, int]:
    twin = spec.create_on_meta()
    prune(twin, spec, indices)
    names = {parameter: name for name, parameter in twin.named_parameters()}
    number: dict[str, int] = {}
    for index in range(max(indices) + 1):
        stage = max(number.values(), default=-1) + 1
        for parameter in reached_parameters(twin, spec, (index,)):
            number.setdefault(names[parameter], stage)
    return number
