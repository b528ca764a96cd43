"""Fold batch norms that use their stored statistics into the convolutions before them.

With constant statistics, a batch norm is a scale and a shift of each channel, which a convolution can apply
through its weights and its bias: a pass over the feature map less, and a map less to keep for the backward
pass. Parameters keep their names and values, and gradients reach all of them that are trained.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any

import torch
from timm.layers import BatchNormAct2d
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = ["fold_norms"]

TRIAL_SIDE = 64  # pixels of the image that shows which norm follows which convolution


class FoldedConv2d(nn.Conv2d):
    """A convolution that also applies the batch norm after it, while that norm is in eval mode."""

    norms: tuple[Any, ...] = ()  # one; in a tuple, so that it is not registered as a child
    _cache: tuple[Any, Tensor, Tensor] | None = None

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if not self.norms[0].training:
            weight, bias = self._folded(weight, bias)
        output: Tensor = super()._conv_forward(input, weight, bias)
        return output

    def _folded(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
        """Weight and bias of both, computed anew only if they have changed or receive gradients."""
        norm = self.norms[0]
        parts = [t for t in (weight, bias, *norm.parameters(), *norm.buffers()) if t is not None]
        trained = torch.is_grad_enabled() and any(t.requires_grad for t in parts)
        if trained or torch.compiler.is_compiling() or torch._C._get_tracing_state():
            return fold(weight, bias, norm)
        state = [(t.data_ptr(), t._version, t.dtype) for t in parts]
        if self._cache is None or self._cache[0] != state:
            with torch.inference_mode(False), torch.no_grad():
                self._cache = (state, *fold(weight, bias, norm))
        return self._cache[1:]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_cache": None}


class FoldedNorm2d(nn.BatchNorm2d):
    """A batch norm that a convolution applies in eval mode."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalize (N, C, H, W) in training mode only."""
        return super().forward(input) if self.training else input


class FoldedNormAct2d(BatchNormAct2d):
    """timm's batch norm with an activation; a convolution applies the norm in eval mode."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalize (N, C, H, W) in training mode only, and activate."""
        return super().forward(x) if self.training else self.act(self.drop(x))  # type: ignore


#: Class of a norm -> class of the norm that takes its place
FOLDED: Mapping[type[nn.Module], type[nn.Module]] = {
    nn.BatchNorm2d: FoldedNorm2d,
    BatchNormAct2d: FoldedNormAct2d,
}


def fold(weight: Tensor, bias: Tensor | None, norm: Any) -> tuple[Tensor, Tensor]:
    """Weight (C_out, C_in, h, w) and bias (C_out,) of a convolution with the batch norm after it."""
    scale: Tensor = (norm.running_var + norm.eps).rsqrt()
    scale = scale if norm.weight is None else scale * norm.weight
    mean = norm.running_mean if bias is None else norm.running_mean - bias
    shift = -mean * scale
    return weight * scale.view(-1, 1, 1, 1), shift if norm.bias is None else shift + norm.bias


def fold_norms(module: nn.Module, channels: int = 3) -> int:
    """Fold the batch norms of a backbone, in place.

    A norm is folded if a trial run shows that it reads the output of one convolution and that nothing else
    does. In training mode a norm computes statistics of the batch, as before.

    Args:
        module: takes images (N, channels, H, W).
        channels: of an image.

    Returns:
        The number of folded norms.
    """
    if not any(type(norm) in FOLDED for norm in module.modules()):
        return 0
    pairs = _pairs(module, channels)
    for conv, norm in pairs:
        conv.__class__, norm.__class__ = FoldedConv2d, FOLDED[type(norm)]
        conv.norms = (norm,)
    return len(pairs)


def _pairs(module: nn.Module, channels: int) -> list[tuple[Any, Any]]:
    """Each convolution whose only reader is a norm, and this norm, whose only source it is."""
    made: dict[int, tuple[nn.Module, Tensor]] = {}  # holds the tensors, so that their ids are not used again
    reads = _Reads()
    sources: dict[nn.Module, list[nn.Module | None]] = defaultdict(list)

    def note_output(conv: nn.Module, inputs: Any, output: Tensor) -> None:
        made[id(output)] = (conv, output)
        reads.counts[id(output)] = 0  # those of an earlier tensor, which had the same id

    def note_input(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        sources[norm].append(made[id(inputs[0])][0] if id(inputs[0]) in made else None)

    hooks = [m.register_forward_hook(note_output) for m in module.modules() if type(m) is nn.Conv2d]
    hooks += [m.register_forward_pre_hook(note_input) for m in module.modules() if type(m) in FOLDED]
    training, parameter = module.training, next(module.parameters())
    image = parameter.new_zeros(1, channels, TRIAL_SIDE, TRIAL_SIDE)
    try:
        with torch.no_grad(), reads:
            module.eval()(image)
    finally:
        module.train(training)
        for hook in hooks:
            hook.remove()
    outputs: dict[nn.Module, list[int]] = defaultdict(list)
    for number, (conv, _) in made.items():
        outputs[conv].append(reads.counts[number])
    return [
        (conv, norm)
        for norm, (conv, *others) in sources.items()
        if conv is not None
        and set(others) <= {conv}
        and outputs[conv] == [1] * (1 + len(others))
        and getattr(norm, "track_running_stats", False)
    ]


class _Reads(TorchDispatchMode):
    """Counts how many operators read each tensor, by its id."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counts: Counter[int] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counts.update(id(x) for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor))
        return func(*args, **(kwargs or {}))
