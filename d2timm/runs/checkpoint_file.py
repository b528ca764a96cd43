"""Files of weights, read without executing code, and what is checked of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from ..utils.safetensors_file import read_safetensors
from ..utils.text import one_line
from ..utils.torch_file import read_torch_file

__all__ = ["AVERAGE", "check_finite", "check_fit", "read_checkpoint", "refuse_pickle"]

#: Key of the averaged weights in a checkpoint, next to "model"
AVERAGE = "ema"


def read_checkpoint(file: str, lazy: bool = False) -> dict[str, Any]:
    """Read the entries of a checkpoint to the CPU, without executing code.

    Args:
        file: path of a .pth or .safetensors file.
        lazy: whether the numbers of a tensor are read from the disk only when they are used.

    Raises:
        ConfigError: the file cannot be read, because it is cut off or no checkpoint.
    """
    refuse_pickle(file)
    if Path(file).suffix == ".safetensors":
        return {"model": read_safetensors(Path(file))[0]}
    entries = read_torch_file(Path(file), lazy)
    if not isinstance(entries, dict):
        raise ConfigError(f"{file}: not a checkpoint: it holds {type(entries).__name__}")
    entries = entries if "model" in entries else {"model": entries}
    for key in ("model", AVERAGE):
        _check_weights(file, entries.get(key, {}))
    return entries


def check_fit(checkpoint: Mapping[str, Any], model: nn.Module, label: str) -> None:
    """Check that a checkpoint has at least one weight of a model.

    Args:
        checkpoint: the result of ``read_checkpoint``.
        model: the model, on any device.
        label: what errors call the checkpoint.

    Raises:
        ConfigError: it has none, so that the model would keep its initial weights.
    """
    weights, own = checkpoint["model"], model.state_dict()
    if checkpoint.get("matching_heuristics") or any(
        name in own and value.shape == own[name].shape for name, value in weights.items()
    ):
        return
    found = f"such as {next(iter(weights))}" if weights else "it is empty"
    raise ConfigError(f"{label}: none of its {len(weights)} weights fits the detector, {found}")


def check_finite(weights: Mapping[str, Any]) -> None:
    """Raise ConfigError if a weight is not finite: the training has diverged."""
    for name, value in weights.items():
        if not torch.isfinite(value).all():
            raise ConfigError(f"the weights are not finite, such as {name}: the training has diverged")


def _check_weights(file: str, weights: Any) -> None:
    """Raise ConfigError if an entry of a checkpoint is anything but dense tensors by their names."""
    if not isinstance(weights, dict):
        raise ConfigError(f"{file}: not a checkpoint: its weights are of type {type(weights).__name__}")
    for name, value in weights.items():
        dense = isinstance(value, Tensor) and value.layout == torch.strided and not value.is_meta
        if not isinstance(name, str) or not dense or value.is_complex() or value.is_quantized:
            kind = f"{value.dtype} tensor" if isinstance(value, Tensor) else type(value).__name__
            raise ConfigError(f"{file}: not a checkpoint: {one_line(name)} is no weight, but of type {kind}")


def refuse_pickle(file: str) -> None:
    """Raise ConfigError if the name of a file is one of pickles."""
    if Path(file).suffix in (".pkl", ".pyth"):
        raise ConfigError(
            f"{file}: reading a pickle can run code; `d2timm convert-weights` makes a .pth file of it"
        )
