"""Counts of what a computation calls, which no busy machine changes."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["Operators"]

aten = torch.ops.aten
#: Operators whose result a process reads, so that it waits for a GPU
WAITS = {aten._local_scalar_dense, aten.nonzero, aten.is_nonzero, aten.equal, aten.masked_select}
INDEXED = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_}


class Operators(TorchDispatchMode):
    """Counts calls of operators, and how often a process would wait for a GPU."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: Counter[Any] = Counter()
        self.waits = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        operator = func.overloadpacket
        self.calls[operator] += 1
        # Masks are looked up as the indices of what is true in them
        masked = operator in INDEXED and any(i is not None and i.dtype == torch.bool for i in args[1])
        self.waits += operator in WAITS or masked
        return func(*args, **(kwargs or {}))
