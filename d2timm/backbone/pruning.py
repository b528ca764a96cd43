"""Remove the parts of a timm model on which the used features do not depend.

DistributedDataParallel fails on parameters without a gradient, and blocks that never run waste memory. timm's
``prune_intermediate_layers`` removes the classifier and most blocks after the last feature. This module finds
the remaining ones from the autograd graph of a run on ``meta``.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from ..utils.sizes import Size
from .meta import MetaRun, TimmModel, tensors_in
from .spec import BackboneSpec, extract

__all__ = ["Used", "prune", "reached_parameters"]


def prune(model: TimmModel, spec: BackboneSpec, indices: tuple[int, ...]) -> None:
    """Remove, in place, the parts on which the features ``indices`` do not depend.

    Modules become ``nn.Identity``, single parameters and buffers None. Parameters that take part in the
    computation but receive no gradient are frozen instead. So every parameter that requires a gradient
    receives one.

    Args:
        model: a model that ``spec.create()`` created, on any device.
        spec: the specification of the model.
        indices: indices of the used features, each >= 0.
    """
    _prune_as_timm_does(model, indices)
    removed, frozen = _unused(spec, indices)
    for path in removed:
        _remove(model, path)
    for path in frozen:
        model.get_parameter(path).requires_grad_(False)


def reached_parameters(model: TimmModel, spec: BackboneSpec, indices: tuple[int, ...]) -> set[Tensor]:
    """Return the parameters on which the features ``indices`` depend.

    Args:
        model: a model on ``meta``.
        spec: the specification of the model.
        indices: indices of the features, each >= 0.
    """
    return _trace(model, spec, indices).reached


@functools.lru_cache(maxsize=64)
def _unused(spec: BackboneSpec, indices: tuple[int, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Find the paths of modules, parameters and buffers to remove, and of parameters to freeze."""
    twin = spec.create_on_meta()
    _prune_as_timm_does(twin, indices)
    trace = _trace(twin, spec, indices)

    removed: list[str] = []
    frozen: list[str] = []
    for path, module in twin.named_modules():
        parameters = list(module.parameters())
        idle = path and path not in trace.called and parameters and not trace.reached.intersection(parameters)
        if idle and not _inside(path, removed) and _runs_without(twin, path, spec, indices):
            removed.append(path)
    for path, parameter in twin.named_parameters():
        if parameter in trace.reached or _inside(path, removed):
            continue
        # a parameter may affect the output without a gradient if its module runs
        idle = path.rpartition(".")[0] not in trace.called
        if idle and _runs_without(twin, path, spec, indices):
            removed.append(path)
        else:
            frozen.append(path)
    removed += _unused_buffers(twin, spec, indices, trace)
    return tuple(removed), tuple(frozen)


def _unused_buffers(
    twin: TimmModel, spec: BackboneSpec, indices: tuple[int, ...], trace: _Trace
) -> list[str]:
    """Find the paths of buffers that no run uses, in training or evaluation, at any size."""
    idle = {path for path, buffer in twin.named_buffers() if id(buffer) not in trace.used}
    if not idle:
        return []
    input_spec = spec.input_spec
    sizes = [spec.trial_size]
    if not input_spec.size and not input_spec.multisize:
        sizes.append((2 * sizes[0][0], 3 * sizes[0][1]))
    for size in sizes:
        for training in (True, False):
            used = _trace(twin, spec, indices, training, size).used
            idle -= {path for path, buffer in twin.named_buffers() if id(buffer) in used}
    return [path for path in sorted(idle) if _runs_without(twin, path, spec, indices)]


def _runs_without(twin: TimmModel, path: str, spec: BackboneSpec, indices: tuple[int, ...]) -> bool:
    """Remove a module, parameter or buffer, and put it back if the features cannot be computed without it."""
    owner, name = _owner(twin, path)
    original = getattr(owner, name)
    _remove(twin, path)
    try:
        _trace(twin, spec, indices)
    except (AttributeError, TypeError, RuntimeError):
        setattr(owner, name, original)
        return False
    return True


class _Trace(NamedTuple):
    """Record of a run.

    Attributes:
        called: paths of the modules that were called.
        reached: parameters on which the features depend.
        used: ids of the tensors that were inputs of an operator.
    """

    called: set[str]
    reached: set[Tensor]
    used: set[int]


class Used(TorchDispatchMode):
    """A context that records the ids of the tensors that are inputs of an operator."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.ids: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        self.ids.update(map(id, tensors_in(*args, *kwargs.values())))
        return func(*args, **kwargs)


def _trace(
    model: TimmModel,
    spec: BackboneSpec,
    indices: tuple[int, ...],
    training: bool = True,
    size: Size | None = None,
) -> _Trace:
    """Run the model on ``meta``."""
    called: set[str] = set()
    hooks = [
        module.register_forward_pre_hook(lambda *_, path=path: called.add(path))
        for path, module in model.named_modules()
    ]
    try:
        # independent of the mode of the caller
        with torch.inference_mode(False), torch.enable_grad(), MetaRun(), Used() as used:
            images = torch.empty(2, spec.channels, *(size or spec.trial_size), device="meta")
            maps = extract(model.train(training), images, indices)
    finally:
        for hook in hooks:
            hook.remove()
    return _Trace(called, set(_leaves(maps.values())), used.ids)


def _leaves(outputs: Iterable[Tensor]) -> Iterator[Tensor]:
    """Iterate over the tensors that would receive a gradient in a backward pass from the outputs."""
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
