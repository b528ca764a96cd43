"""timm models on the ``meta`` device, where a tensor has a shape and no numbers.

What a model gives and takes is found here at no cost of memory, for giant models as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import timm
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only
from torch.utils.weak import WeakIdKeyDictionary

__all__ = ["MetaRun", "TimmModel", "create_on_meta"]

#: An nn.Module with timm's ways (feature_info, forward_intermediates, ...), which no type of timm's tells
TimmModel: TypeAlias = Any

INITIALISERS = {"uniform_", "normal_", "erfinv_", "clamp_", "mul_", "add_", "fill_", "zero_", "copy_"}

aten = torch.ops.aten
#: What makes a tensor of known numbers from nothing
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
#: Operators -> (tensor, index -> dimension) for each index that they look up
LOOKUPS: dict[Any, Callable[..., Iterator[tuple[Tensor, Any, int]]]] = {
    aten.index: lambda x, indices: ((x, index, i) for i, index in enumerate(indices)),
    aten.index_select: lambda x, dim, index: iter([(x, index, dim)]),
    aten.gather: lambda x, dim, index, **_: iter([(x, index, dim)]),
    aten.embedding: lambda x, index, *_, **__: iter([(x, index, 0)]),
}
#: Known numbers are followed up to this many in a tensor.
MOST_NUMBERS = 1_000_000


def _addmm(bias: Tensor, x: Tensor, weight: Tensor, **_: Any) -> Tensor:
    if x.shape[1] != weight.shape[0]:
        raise RuntimeError(f"{tuple(x.shape)} and {tuple(weight.shape)} cannot be multiplied")
    return x.new_empty(x.shape[0], weight.shape[1])


def _layer_norm(x: Tensor, shape: list[int], *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    if list(x.shape[-len(shape) :]) != list(shape):
        raise RuntimeError(f"a norm of {shape} is given {tuple(x.shape)}")
    statistics = x.new_empty(*x.shape[: -len(shape)], *[1] * len(shape))
    return torch.empty_like(x, memory_format=torch.contiguous_format), statistics, statistics


def _batch_norm(x: Tensor, weight: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    channels, training = x.shape[1], rest[3]
    if any(t is not None and t.shape[0] != channels for t in (weight, *rest[:3])):
        raise RuntimeError(f"a batch norm of other channels is given {tuple(x.shape)}")
    statistics = x.new_empty(channels if training else 0)
    return torch.empty_like(x), statistics, statistics


def _same_shape(x: Tensor, *_: Any, **__: Any) -> Tensor:
    return torch.empty_like(x)


SHORTCUTS: dict[Any, Callable[..., Any]] = {
    aten.addmm: _addmm,
    aten.native_layer_norm: _layer_norm,
    aten.native_batch_norm: _batch_norm,
    **dict.fromkeys((aten._safe_softmax, aten._softmax, aten.gelu, aten.relu, aten.silu), _same_shape),
}


def create_on_meta(model_name: str, **kwargs: Any) -> TimmModel:
    """Make the full timm model without numbers, in eval mode."""
    with torch.inference_mode(False), torch.device("meta"), _WithoutInitialisation():
        return timm.create_model(model_name, pretrained=False, **kwargs).eval()


class _WithoutInitialisation(TorchFunctionMode):
    """Skip what fills weights: on ``meta`` it is most of the time that a model takes to be made."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", None) in INITIALISERS:
            tensor = args[0] if args else kwargs.get("tensor")
            if isinstance(tensor, Tensor) and tensor.is_meta:
                return tensor
        return func(*args, **kwargs)


class MetaRun(TorchDispatchMode):
    """Run models on ``meta`` as a real device would.

    Tensors that follow from constants alone (``arange`` and what is computed of it, such as relative
    positions) are computed along on the CPU: what is looked up by them is held against its size, which
    ``meta`` does not do, and ``item()`` gives their number, which ``meta`` cannot. A device context that the
    caller may be in (``with torch.device("meta")``), which slows every call, is left for the time.

    Args:
        fast: do without the meta kernels of norms, linear layers and activations, which are written in
            Python and take most of a run. Whoever counts operators from outside does not see these.

    Raises:
        IndexError: an index is out of bounds.
    """

    active = 0  # runs in progress

    def __init__(self, fast: bool = True) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.fast = fast
        self.known = WeakIdKeyDictionary()

    def __enter__(self) -> MetaRun:
        self._outside = torch._C.DisableTorchFunction()
        self._outside.__enter__()
        super().__enter__()  # type: ignore[no-untyped-call]
        MetaRun.active += 1
        return self

    def __exit__(self, *error: Any) -> None:
        MetaRun.active -= 1
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        self._outside.__exit__(*error)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        packet = func.overloadpacket
        if self.fast and packet in SHORTCUTS and args[0].is_meta:
            return SHORTCUTS[packet](*args, **kwargs)
        if packet is aten._local_scalar_dense and args[0] in self.known:
            return self.known[args[0]].item()
        if packet in LOOKUPS and not func._schema.is_mutable:
            self._check(packet, args, kwargs)
        out = func(*args, **kwargs)
        if isinstance(out, Tensor) and out.is_meta and out.numel() <= MOST_NUMBERS:
            self._follow(func, args, kwargs, out)
        return out

    def _follow(self, func: Any, args: Any, kwargs: Any, out: Tensor) -> None:
        """Compute ``out`` with numbers where all that it is made of is known."""
        flat, _ = tree_flatten((args, kwargs))
        tensors = [x for x in flat if isinstance(x, Tensor)]
        if not tensors and func.overloadpacket not in FACTORIES:
            return
        if not all(x in self.known or not x.is_meta for x in tensors):
            self.known.pop(out, None)  # written in place with something unknown
            return
        args, kwargs = tree_map_only(Tensor, lambda x: self.known.get(x, x), (args, kwargs))
        if kwargs.get("device") is not None:
            kwargs["device"] = torch.device("cpu")
        self.known[out] = func(*args, **kwargs)

    def _check(self, packet: Any, args: Any, kwargs: Any) -> None:
        for x, index, dim in LOOKUPS[packet](*args, **kwargs):
            numbers = self.known.get(index) if isinstance(index, Tensor) else None
            if numbers is None or numbers.dtype == torch.bool or not numbers.numel():
                continue
            lowest, highest, size = int(numbers.min()), int(numbers.max()), x.shape[dim]
            if not -size <= lowest <= highest < size:
                wrong = lowest if lowest < -size else highest
                raise IndexError(f"index {wrong} is out of bounds for a dimension of size {size}")
