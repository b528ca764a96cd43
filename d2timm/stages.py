"""Which stage or layer of a timm model a parameter belongs to."""

from __future__ import annotations

from timm.models import group_parameters

from .features import Source
from .meta import TimmModel
from .pruning import prune, reached

__all__ = ["stage_of_parameters"]


def stage_of_parameters(
    model: TimmModel, source: Source, indices: tuple[int, ...], coarse: bool
) -> dict[str, int]:
    """Number the parameters of a model by depth.

    By timm's ``group_matcher``; a model that has none, or none for stages, is divided by its features, each
    of which begins where the one before it ends.

    Args:
        model: what ``source`` made, pruned to ``indices``.
        source: where it comes from.
        indices: features in use.
        coarse: stages; otherwise layers, the finest division that timm knows.

    Returns:
        Name -> number, 0 for the stem, without gaps.
    """
    try:
        matcher = model.group_matcher(coarse=coarse)
    except (AttributeError, AssertionError):
        return _by_feature(source, indices)
    number: dict[str, int] = group_parameters(model, matcher, reverse=True)
    order = {stage: i for i, stage in enumerate(sorted(set(number.values())))}
    return {name: order[stage] for name, stage in number.items()}


def _by_feature(source: Source, indices: tuple[int, ...]) -> dict[str, int]:
    twin = source.create_on_meta()
    prune(twin, source, indices)
    names = {parameter: name for name, parameter in twin.named_parameters()}
    number: dict[str, int] = {}
    for index in range(max(indices) + 1):
        stage = max(number.values(), default=-1) + 1
        for parameter in reached(twin, source, (index,)):
            number.setdefault(names[parameter], stage)
    return number
