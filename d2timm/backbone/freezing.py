"""Freeze parts of a timm model: stages, names, batch norms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from timm.models import group_parameters
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..errors import ConfigError
from ..utils.checks import suggest
from .meta import TimmModel
from .pruning import prune, reached
from .spec import BackboneSpec

__all__ = ["batch_norms", "freeze_names", "freeze_stages", "put_frozen_in_eval_mode", "stage_of_parameters"]


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
            hint = suggest(pattern, names)
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


def stage_of_parameters(
    model: TimmModel, spec: BackboneSpec, indices: tuple[int, ...], coarse: bool
) -> dict[str, int]:
    """Number the parameters of a model by depth.

    By timm's ``group_matcher``; a model that has none, or none for stages, is divided by its features, each
    of which begins where the one before it ends.

    Args:
        model: what ``source`` made, pruned to ``indices``.
        spec: where it comes from.
        indices: features in use.
        coarse: stages; otherwise layers, the finest division that timm knows.

    Returns:
        Name -> number, 0 for the stem, without gaps.
    """
    try:
        matcher = model.group_matcher(coarse=coarse)
    except (AttributeError, AssertionError):
        return _by_feature(spec, indices)
    number: dict[str, int] = group_parameters(model, matcher, reverse=True)
    order = {stage: i for i, stage in enumerate(sorted(set(number.values())))}
    return {name: order[stage] for name, stage in number.items()}


def _by_feature(spec: BackboneSpec, indices: tuple[int, ...]) -> dict[str, int]:
    twin = spec.create_on_meta()
    prune(twin, spec, indices)
    names = {parameter: name for name, parameter in twin.named_parameters()}
    number: dict[str, int] = {}
    for index in range(max(indices) + 1):
        stage = max(number.values(), default=-1) + 1
        for parameter in reached(twin, spec, (index,)):
            number.setdefault(names[parameter], stage)
    return number
