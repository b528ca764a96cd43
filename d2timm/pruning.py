"""Take out of a timm model what the features that are used do not depend on.

A parameter without a gradient stops DistributedDataParallel, and a block that is never run is memory and
optimizer state for nothing. timm's own ``prune_intermediate_layers`` takes out the classifier and most
blocks past the last feature; what it leaves is found here, from the autograd graph of a run on ``meta``.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from .features import Source, extract
from .meta import MetaRun, TimmModel

__all__ = ["prune", "reached"]


def prune(model: TimmModel, source: Source, indices: tuple[int, ...]) -> None:
    """Remove, in place, what the features ``indices`` do not depend on.

    Modules become ``nn.Identity``, single parameters None. What is run, though no gradient comes of it,
    is frozen instead. No parameter is left that requires a gradient and does not get one.

    Args:
        model: what ``source.create()`` made; any device.
        source: where it comes from.
        indices: features in use, each >= 0.
    """
    _prune_as_timm_does(model, indices)
    removed, frozen = _unused(source, indices)
    for path in removed:
        _remove(model, path)
    for path in frozen:
        model.get_parameter(path).requires_grad_(False)


def reached(model: TimmModel, source: Source, indices: tuple[int, ...]) -> set[Tensor]:
    """The parameters of a model on ``meta`` that the features ``indices`` depend on."""
    return _trace(model, source, indices)[1]


@functools.lru_cache(maxsize=64)
def _unused(source: Source, indices: tuple[int, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Paths of the modules and parameters to remove, and of the parameters to freeze."""
    twin = source.create_on_meta()
    _prune_as_timm_does(twin, indices)
    called, reached = _trace(twin, source, indices)

    removed: list[str] = []
    frozen: list[str] = []
    for path, module in twin.named_modules():
        parameters = list(module.parameters())
        idle = path and path not in called and parameters and not reached.intersection(parameters)
        if idle and not _inside(path, removed) and _runs_without(twin, path, source, indices):
            removed.append(path)
    for path, parameter in twin.named_parameters():
        if parameter in reached or _inside(path, removed):
            continue
        # what a module computes with may matter without a gradient, so only an idle owner loses it
        idle = path.rpartition(".")[0] not in called
        if idle and _runs_without(twin, path, source, indices):
            removed.append(path)
        else:
            frozen.append(path)
    return tuple(removed), tuple(frozen)


def _runs_without(twin: TimmModel, path: str, source: Source, indices: tuple[int, ...]) -> bool:
    """Remove a module or parameter, and put it back if the features need it after all."""
    owner, name = _owner(twin, path)
    kept = getattr(owner, name)
    _remove(twin, path)
    try:
        _trace(twin, source, indices)
    except (AttributeError, TypeError, RuntimeError):
        setattr(owner, name, kept)
        return False
    return True


def _trace(model: TimmModel, source: Source, indices: tuple[int, ...]) -> tuple[set[str], set[Tensor]]:
    """Run the model; the modules that were called and the parameters that the features depend on."""
    called: set[str] = set()
    hooks = [
        module.register_forward_pre_hook(lambda *_, path=path: called.add(path))
        for path, module in model.named_modules()
    ]
    try:
        with torch.inference_mode(False), torch.enable_grad(), MetaRun():  # whatever the caller is in
            images = torch.empty(2, source.channels, *source.trial_size, device="meta")
            maps = extract(model.train(), images, indices)
    finally:
        for hook in hooks:
            hook.remove()
    return called, set(_leaves(maps.values()))


def _leaves(outputs: Iterable[Tensor]) -> Iterator[Tensor]:
    """The tensors that a backward pass from the outputs would give a gradient."""
    nodes = [x.grad_fn for x in outputs]
    seen = set(nodes)
    while nodes:
        node = nodes.pop()
        if node is None:
            continue
        if hasattr(node, "variable"):
            yield node.variable
        following = {fn for fn, _ in node.next_functions} - seen
        seen |= following
        nodes.extend(following)


def _prune_as_timm_does(model: TimmModel, indices: tuple[int, ...]) -> None:
    model.prune_intermediate_layers(sorted(set(indices)), prune_norm=True, prune_head=True)


def _remove(model: TimmModel, path: str) -> None:
    owner, name = _owner(model, path)
    setattr(owner, name, nn.Identity() if isinstance(getattr(owner, name), nn.Module) else None)


def _owner(model: TimmModel, path: str) -> tuple[nn.Module, str]:
    parent, _, name = path.rpartition(".")
    return model.get_submodule(parent), name


def _inside(path: str, removed: Iterable[str]) -> bool:
    return any(path == other or path.startswith(f"{other}.") for other in removed)
