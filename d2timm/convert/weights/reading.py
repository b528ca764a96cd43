"""Read checkpoints of others; nothing in them is executed."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from ...errors import ConfigError
from .pickles import read_pickle

__all__ = ["Checkpoint", "read"]

logger = logging.getLogger(__name__)

SUFFIXES = (".pth", ".pt", ".bin", ".pkl", ".safetensors")
#: Where a checkpoint keeps its weights: mmdet and Lightning, detectron2 and most others, pycls, Detectron
PLACES = ("state_dict", "model", "model_state", "blobs")
WRAPPERS = ("module.", "_orig_mod.")  # what distributed and compiled models put before each name


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds.

    Attributes:
        weights: name -> tensor, on the CPU.
        beside: what there is beside the weights, such as the state of an optimizer.
        author: who wrote a file of detectron2's zoo, or an empty text.
    """

    weights: dict[str, Tensor]
    beside: tuple[str, ...] = ()
    author: str = ""


def read(path: Path) -> Checkpoint:
    """Read .pth, .pt, .bin (of torch), .pkl (of detectron2) or .safetensors.

    Raises:
        ConfigError: no such file, one that is no checkpoint, or one that is more than data.
    """
    if not path.is_file():
        raise ConfigError(f"{path}: no such file")
    if path.suffix not in SUFFIXES:
        raise ConfigError(f"{path}: a checkpoint ends in {', '.join(SUFFIXES)}")
    try:
        content = _content(path)
    except Exception as error:  # torch, pickle and safetensors raise what they like for a broken file
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise ConfigError(f"{path}: not a checkpoint that holds data only ({reason[:200]})") from error
    if not isinstance(content, Mapping):
        raise ConfigError(f"{path}: it holds a {type(content).__name__}, not weights by their names")
    place = next((key for key in PLACES if isinstance(content.get(key), Mapping)), None)
    weights = {
        _unwrapped(str(name)): tensor
        for name, value in (content[place] if place else content).items()
        if (tensor := _tensor(value)) is not None
    }
    if not weights:
        raise ConfigError(f"{path}: there are no weights in it")
    beside = [str(key) for key in content if key != place] if place else []
    return Checkpoint(weights, tuple(beside), str(content.get("__author__", "")))


def _content(path: Path) -> Any:
    if path.suffix == ".safetensors":
        return load_file(path)
    if path.suffix == ".pkl":
        return read_pickle(path)
    return torch.load(path, map_location="cpu", weights_only=True)


def _unwrapped(name: str) -> str:
    for wrapper in WRAPPERS:
        name = name.removeprefix(wrapper)
    return name


def _tensor(value: Any) -> Tensor | None:
    if isinstance(value, np.ndarray):
        # of the machine's byte order, and writable
        return torch.from_numpy(value.astype(value.dtype.newbyteorder("="), copy=True))
    return value.detach() if isinstance(value, Tensor) else None
