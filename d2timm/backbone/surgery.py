"""Give a timm model the structure of a backbone: pruned, with the norms and checkpoints asked for."""

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

__all__ = ["NORMS", "build_structure", "check_structure", "saved_bytes"]

NORMS = ("keep", "FrozenBN", "SyncBN")


def build_structure(
    model: TimmModel, spec: BackboneSpec, indices: tuple[int, ...], norm: str, grad_checkpointing: bool
) -> TimmModel:
    """Prune a model and change its norms, in place where that can be.

    Args:
        model: what ``source`` made; any device.
        spec: where it comes from.
        indices: features in use, each >= 0.
        norm: one of ``NORMS``; the frozen kind has the structure of what is kept.
        grad_checkpointing: compute activations again in the backward pass.
    """
    prune(model, spec, indices)
    pad_before_shift(model)
    if norm == "SyncBN":
        model = convert_sync_batchnorm(model)
    if grad_checkpointing:
        model.set_grad_checkpointing(True)
    return model


def check_structure(
    spec: BackboneSpec, indices: tuple[int, ...], norm: str, grad_checkpointing: bool
) -> None:
    """Raise ConfigError if the model cannot have what is asked for."""
    if norm not in NORMS:
        raise ConfigError(f"norm={norm!r}: one of {', '.join(NORMS)}")
    if norm == "keep" and not grad_checkpointing:
        return
    twin = build_structure(spec.create_on_meta(), spec, indices, "keep", grad_checkpointing=False)
    if norm != "keep" and not batch_norms(twin):
        raise ConfigError(f"norm={norm}: {spec.model_name} has no batch norm; use norm=keep")
    if grad_checkpointing:
        images = torch.empty(1, spec.channels, *spec.trial_size, device="meta")

        def run() -> dict[int, Tensor]:
            return extract(twin.train(), images, indices)

        kept = saved_bytes(run, twin)
        try:
            twin.set_grad_checkpointing(True)
            saved = kept - saved_bytes(run, twin)
        except (AssertionError, AttributeError, NotImplementedError):
            saved = 0
        if saved <= 0:
            raise ConfigError(f"grad_checkpointing=True: timm cannot do it for {spec.model_name}; use False")


def saved_bytes(run: Callable[[], Any], module: torch.nn.Module) -> int:
    """Bytes that a forward pass on ``meta`` keeps for the backward pass, weights of the module aside."""
    weights = {x.untyped_storage()._cdata for x in module.parameters()}
    weights |= {x.untyped_storage()._cdata for x in module.buffers()}
    kept: dict[int, int] = {}

    def pack(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = storage.nbytes()
        return x

    with torch.inference_mode(False), torch.enable_grad(), saved_tensors_hooks(pack, lambda x: x), MetaRun():
        outputs = run()  # held, so that no storage is given away while others are counted
    del outputs
    return sum(kept.values())
