"""timm models on the ``meta`` device, where a tensor has a shape but no values.

Models need no memory for weights there, so that even giant models can be examined.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import timm
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from torch.utils.weak import WeakIdKeyDictionary

__all__ = ["MetaRun", "TimmModel", "create_on_meta", "tensors_in"]

#: An nn.Module with timm's interface (feature_info, forward_intermediates, ...), for which timm has no type
TimmModel: TypeAlias = Any

#: Functions and methods that initialise weights
INITIALISERS = {"uniform_", "normal_", "erfinv_", "clamp_", "mul_", "add_", "fill_", "zero_", "copy_"}

aten = torch.ops.aten
#: Operators that create tensors of known values from constants
FACTORIES = {
    aten.arange,
    aten.eye,
    aten.full,
    aten.linspace,
    aten.ones,
    aten.scalar_tensor,
    aten.tril_indices,
    aten.triu_indices,
    aten.zeros,
}
#: Operators that look up indices -> (tensor, indices, dimension of the tensor) for each lookup of a call
LOOKUPS: dict[Any, Callable[..., Iterator[tuple[Tensor, Any, int]]]] = {
    aten.index: lambda x, indices: ((x, index, i) for i, index in enumerate(indices)),
    aten.index_select: lambda x, dim, index: iter([(x, index, dim)]),
    aten.gather: lambda x, dim, index, **_: iter([(x, index, dim)]),
    aten.embedding: lambda x, index, *_, **__: iter([(x, index, 0)]),
}
#: Values are tracked for tensors of at most this many elements.
MAX_TRACKED = 1_000_000


def _addmm(bias: Tensor, x: Tensor, weight: Tensor, **_: Any) -> Tensor:
    if x.shape[1] != weight.shape[0] or bias.shape[-1] not in (1, weight.shape[1]):
        raise RuntimeError(f"{tuple(x.shape)} and {tuple(weight.shape)} cannot be multiplied")
    return x.new_empty(x.shape[0], weight.shape[1])


def _layer_norm(x: Tensor, shape: list[int], *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    affine = [t.shape for t in rest[:2] if t is not None]
    if any(list(sides[-len(shape) :]) != list(shape) for sides in (x.shape, *affine)):
        raise RuntimeError(f"layer norm over {shape} does not accept an input of shape {tuple(x.shape)}")
    statistics = x.new_empty(*x.shape[: -len(shape)], *[1] * len(shape))
    return torch.empty_like(x, memory_format=torch.contiguous_format), statistics, statistics


def _batch_norm(x: Tensor, weight: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    channels, training = x.shape[1], rest[3]
    if any(t is not None and t.shape[0] != channels for t in (weight, *rest[:3])):
        raise RuntimeError(f"batch norm does not accept an input of shape {tuple(x.shape)}")
    statistics = x.new_empty(channels if training else 0)
    return torch.empty_like(x), statistics, statistics


def _softmax(x: Tensor, *_: Any, **__: Any) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _activation(x: Tensor, *_: Any, **__: Any) -> Tensor:
    return torch.empty_like(x)


#: Operators -> fast replacements of their meta kernels
SHORTCUTS: dict[Any, Callable[..., Any]] = {
    aten.addmm: _addmm,
    aten.native_layer_norm: _layer_norm,
    aten.native_batch_norm: _batch_norm,
    **dict.fromkeys((aten._safe_softmax, aten._softmax), _softmax),
    **dict.fromkeys((aten.gelu, aten.relu, aten.silu), _activation),
}


def create_on_meta(model_name: str, **kwargs: Any) -> TimmModel:
    """Create the complete timm model on ``meta``, in eval mode.

    Args:
        model_name: any name that ``timm.create_model`` accepts.
        kwargs: further keyword arguments of ``timm.create_model``.
    """
    enabled = torch._C._EnableTorchFunction()  # MetaRun, which may be active, disables it
    with torch.inference_mode(False), enabled, torch.device("meta"), _WithoutInitialisation():
        return timm.create_model(model_name, pretrained=False, **kwargs).eval()


def tensors_in(*values: Any) -> Iterator[Tensor]:
    """Iterate over the tensors in arguments or results of an operator, also in (unnested) lists of them."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from (x for x in value if isinstance(x, Tensor))


class _WithoutInitialisation(TorchFunctionMode):
    """Skip the initialisation of weights, which takes most of the time to create a model on ``meta``."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", None) in INITIALISERS:
            tensor = args[0] if args else kwargs.get("tensor")
            if isinstance(tensor, Tensor) and tensor.is_meta:
                return tensor
        return func(*args, **kwargs)


class MetaRun(TorchDispatchMode):
    """A context that runs models on ``meta`` with the checks of a real device.

    Tensors that depend on constants only (``arange`` and what is computed from it, such as relative
    positions) are also computed on the CPU. Therefore lookups by such indices are checked against the size
    of the tensor, which ``meta`` does not do, and ``item()`` returns their value, which ``meta`` cannot. A
    device context of the caller (``with torch.device("meta")``) slows every call, so it is suspended.

    Args:
        fast: replace the meta kernels of norms, linear layers and activations, which are written in Python
            and take most of the time, by shortcuts. Dispatch modes outside this one, such as a counter of
            FLOPs, do not see the operators that are replaced.

    Raises:
        IndexError: an index is out of bounds.
    """

    active = 0  #: number of runs in progress

    def __init__(self, fast: bool = True) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.fast = fast
        self.values = WeakIdKeyDictionary()  # tensor on meta -> the same tensor on the CPU

    def __enter__(self) -> MetaRun:
        self._suspension = torch._C.DisableTorchFunction()
        self._suspension.__enter__()
        super().__enter__()  # type: ignore[no-untyped-call]
        MetaRun.active += 1
        return self

    def __exit__(self, *error: Any) -> None:
        MetaRun.active -= 1
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        self._suspension.__exit__(*error)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        packet = func.overloadpacket
        if self.fast and packet in SHORTCUTS and args[0].is_meta:
            return SHORTCUTS[packet](*args, **kwargs)
        if packet is aten._local_scalar_dense and args[0] in self.values:
            return self.values[args[0]].item()
        if packet in LOOKUPS and not func._schema.is_mutable:
            self._check_indices(packet, args, kwargs)
        out = func(*args, **kwargs)
        if self.values or packet in FACTORIES:
            outputs = list(tensors_in(out))
            if outputs and all(x.is_meta and x.numel() <= MAX_TRACKED for x in outputs):
                self._track(func, args, kwargs, outputs)
        return out

    def _track(self, func: Any, args: Any, kwargs: Any, outputs: list[Tensor]) -> None:
        """Compute the values of outputs if the values of all inputs are known."""
        inputs = [*tensors_in(*args), *tensors_in(*kwargs.values())]
        if not inputs and func.overloadpacket not in FACTORIES:
            return
        if not all(x in self.values or not x.is_meta for x in inputs):
            for written in (x for x in outputs if any(x is y for y in inputs)):
                self._forget(written)
            return
        args, kwargs = tree_map_only(Tensor, lambda x: self.values.get(x, x), (args, kwargs))
        if kwargs.get("device") is not None:
            kwargs["device"] = torch.device("cpu")
        for output, values in zip(outputs, tensors_in(func(*args, **kwargs)), strict=True):
            self.values[output] = values

    def _forget(self, written: Tensor) -> None:
        """Forget the values of all views of a tensor into which unknown values were written."""
        storage = written.untyped_storage()._cdata
        for x in [x for x in self.values if x.untyped_storage()._cdata == storage]:
            del self.values[x]

    def _check_indices(self, packet: Any, args: Any, kwargs: Any) -> None:
        for x, index, dim in LOOKUPS[packet](*args, **kwargs):
            values = self.values.get(index) if isinstance(index, Tensor) else None
            if values is None or values.dtype == torch.bool or not values.numel():
                continue
            size = x.shape[dim]
            first = -size if packet is aten.index else 0  # other lookups do not accept negative indices
            lowest, highest = int(values.min()), int(values.max())
            if not first <= lowest <= highest < size:
                wrong = lowest if lowest < first else highest
                raise IndexError(f"index {wrong} is out of bounds for a dimension of size {size}")
