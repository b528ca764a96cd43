"""Turn a complete timm model into a backbone: prune it, replace its norms, switch on checkpointing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from timm.layers import convert_sync_batchnorm
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from ..errors import ConfigError
from .blocks import pad_before_shift
from .freezing import batch_norms
from .meta import MetaRun, TimmModel
from .pruning import prune
from .spec import BackboneSpec, extract

__all__ = ["NORMS", "apply_surgery", "check_surgery", "saved_bytes"]

NORMS = ("keep", "FrozenBN", "SyncBN")


def apply_surgery(
    model: TimmModel, spec: BackboneSpec, indices: tuple[int, ...], norm: str, grad_checkpointing: bool
) -> TimmModel:
    """Prune a model and replace its norms, in place where possible.

    Args:
        model: a model that ``spec.create()`` created, on any device.
        spec: the specification of the model.
        indices: indices of the used features, each >= 0.
        norm: one of ``NORMS``; ``FrozenBN`` has the same structure as ``keep``.
        grad_checkpointing: recompute activations in the backward pass.

    Returns:
        The changed model, which may be a new object.
    """
    prune(model, spec, indices)
    pad_before_shift(model)
    if norm == "SyncBN":
        model = convert_sync_batchnorm(model)
    if grad_checkpointing:
        model.set_grad_checkpointing(True)
    return model


def check_surgery(spec: BackboneSpec, indices: tuple[int, ...], norm: str, grad_checkpointing: bool) -> None:
    """Check that a model supports a norm and checkpointing.

    Args:
        spec: the specification of the model.
        indices: indices of the used features, each >= 0.
        norm: one of ``NORMS``.
        grad_checkpointing: recompute activations in the backward pass.

    Raises:
        ConfigError: the norm is unknown, or the model does not support one of the two.
    """
    if norm not in NORMS:
        raise ConfigError(f"norm={norm!r}: must be one of {', '.join(NORMS)}")
    if norm == "keep" and not grad_checkpointing:
        return
    twin = apply_surgery(spec.create_on_meta(), spec, indices, "keep", grad_checkpointing=False)
    if norm != "keep" and not batch_norms(twin):
        raise ConfigError(f"norm={norm}: {spec.model_name} has no batch norm; use norm=keep")
    if grad_checkpointing and not _checkpointing_saves_memory(twin, spec, indices):
        raise ConfigError(
            f"grad_checkpointing=True: timm does not support it for {spec.model_name}; "
            "use grad_checkpointing=False"
        )


def _checkpointing_saves_memory(twin: TimmModel, spec: BackboneSpec, indices: tuple[int, ...]) -> bool:
    """Return whether checkpointing has an effect: some models of timm ignore their switch."""
    images = torch.empty(1, spec.channels, *spec.trial_size, device="meta")

    def run() -> dict[int, Tensor]:
        return extract(twin.train(), images, indices)

    plain = saved_bytes(run, twin)
    try:
        twin.set_grad_checkpointing(True)
        return saved_bytes(run, twin) < plain
    except (AssertionError, AttributeError, NotImplementedError):
        return False


def saved_bytes(run: Callable[[], Any], module: torch.nn.Module) -> int:
    """Measure the bytes that a forward pass keeps for the backward pass.

    Args:
        run: runs the forward pass and returns its outputs.
        module: the module that runs, on any device; its weights and buffers are not counted.
    """
    weights = {x.untyped_storage()._cdata for x in module.parameters()}
    weights |= {x.untyped_storage()._cdata for x in module.buffers()}
    saved: dict[int, int] = {}

    def pack(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        if storage._cdata not in weights:
            saved[storage._cdata] = storage.nbytes()
        return x

    with torch.inference_mode(False), torch.enable_grad(), saved_tensors_hooks(pack, lambda x: x), MetaRun():
        outputs = run()  # a reference, so that no storage is freed and its address reused while counting
    del outputs
    return sum(saved.values())
