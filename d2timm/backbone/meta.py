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
from torch.utils._pytree import tree_map_only
from torch.utils.weak import WeakIdKeyDictionary

__all__ = ["MetaRun", "TimmModel", "create_on_meta", "tensors_in"]

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
    if x.shape[1] != weight.shape[0] or bias.shape[-1] not in (1, weight.shape[1]):
        raise RuntimeError(f"{tuple(x.shape)} and {tuple(weight.shape)} cannot be multiplied")
    return x.new_empty(x.shape[0], weight.shape[1])


def _layer_norm(x: Tensor, shape: list[int], *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    affine = [t.shape for t in rest[:2] if t is not None]
    if any(list(sides[-len(shape) :]) != list(shape) for sides in (x.shape, *affine)):
        raise RuntimeError(f"a norm of {shape} is given {tuple(x.shape)}")
    statistics = x.new_empty(*x.shape[: -len(shape)], *[1] * len(shape))
    return torch.empty_like(x, memory_format=torch.contiguous_format), statistics, statistics


def _batch_norm(x: Tensor, weight: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    channels, training = x.shape[1], rest[3]
    if any(t is not None and t.shape[0] != channels for t in (weight, *rest[:3])):
        raise RuntimeError(f"a batch norm of other channels is given {tuple(x.shape)}")
    statistics = x.new_empty(channels if training else 0)
    return torch.empty_like(x), statistics, statistics


def _softmax(x: Tensor, *_: Any, **__: Any) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _activation(x: Tensor, *_: Any, **__: Any) -> Tensor:
    return torch.empty_like(x)


SHORTCUTS: dict[Any, Callable[..., Any]] = {
    aten.addmm: _addmm,
    aten.native_layer_norm: _layer_norm,
    aten.native_batch_norm: _batch_norm,
    **dict.fromkeys((aten._safe_softmax, aten._softmax), _softmax),
    **dict.fromkeys((aten.gelu, aten.relu, aten.silu), _activation),
}


def create_on_meta(model_name: str, **kwargs: Any) -> TimmModel:
    """Make the full timm model without numbers, in eval mode."""
    enabled = torch._C._EnableTorchFunction()  # which a run on meta disables
    with torch.inference_mode(False), enabled, torch.device("meta"), _WithoutInitialisation():
        return timm.create_model(model_name, pretrained=False, **kwargs).eval()


def tensors_in(*values: Any) -> Iterator[Tensor]:
    """The tensors among arguments or results of an operator, which nests them in lists at most once."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from (x for x in value if isinstance(x, Tensor))


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
        if self.known or packet in FACTORIES:
            outputs = list(tensors_in(out))
            if outputs and all(x.is_meta and x.numel() <= MOST_NUMBERS for x in outputs):
                self._follow(func, args, kwargs, outputs)
        return out

    def _follow(self, func: Any, args: Any, kwargs: Any, outputs: list[Tensor]) -> None:
        """Compute outputs with numbers where all that they are made of is known."""
        inputs = [*tensors_in(*args), *tensors_in(*kwargs.values())]
        if not inputs and func.overloadpacket not in FACTORIES:
            return
        if not all(x in self.known or not x.is_meta for x in inputs):
            for written in (x for x in outputs if any(x is given for given in inputs)):
                self._forget(written)
            return
        args, kwargs = tree_map_only(Tensor, lambda x: self.known.get(x, x), (args, kwargs))
        if kwargs.get("device") is not None:
            kwargs["device"] = torch.device("cpu")
        for output, numbers in zip(outputs, tensors_in(func(*args, **kwargs)), strict=True):
            self.known[output] = numbers

    def _forget(self, written: Tensor) -> None:
        """Something unknown was written into a tensor: all views of it are unknown from now on."""
        storage = written.untyped_storage()._cdata
        for x in [x for x in self.known if x.untyped_storage()._cdata == storage]:
            del self.known[x]

    def _check(self, packet: Any, args: Any, kwargs: Any) -> None:
        for x, index, dim in LOOKUPS[packet](*args, **kwargs):
            numbers = self.known.get(index) if isinstance(index, Tensor) else None
            if numbers is None or numbers.dtype == torch.bool or not numbers.numel():
                continue
            size = x.shape[dim]
            first = -size if packet is aten.index else 0  # the others do not count from the end
            lowest, highest = int(numbers.min()), int(numbers.max())
            if not first <= lowest <= highest < size:
                wrong = lowest if lowest < first else highest
                raise IndexError(f"index {wrong} is out of bounds for a dimension of size {size}")
