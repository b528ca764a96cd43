"""Read checkpoints of other projects, without executing anything in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...errors import ConfigError
from ...utils.safetensors_file import read_safetensors
from ...utils.text import unreadable
from ...utils.torch_file import read_torch_file
from .pickles import read_pickle

__all__ = ["Checkpoint", "read"]

SUFFIXES = (".pth", ".pt", ".bin", ".pkl", ".safetensors")
#: Keys of the weights: mmdet and Lightning, detectron2 and most others, pycls, Detectron
WEIGHT_KEYS = ("state_dict", "model", "model_state", "blobs")
WRAPPERS = ("module.", "_orig_mod.")  # prefixes that distributed and compiled models add to each name


@dataclass(frozen=True)
class Checkpoint:
    """The content of a checkpoint.

    Attributes:
        weights: name -> tensor, on the CPU.
        other_keys: what the file contains in addition, such as the state of an optimizer.
        author: author of a file of detectron2's model zoo, or "".
    """

    weights: dict[str, Tensor]
    other_keys: tuple[str, ...] = ()
    author: str = ""


def read(path: Path) -> Checkpoint:
    """Read a file of torch (.pth, .pt, .bin), of detectron2 (.pkl) or of safetensors.

    Raises:
        ConfigError: the file does not exist, is not a checkpoint, or contains more than data.
    """
    if not path.is_file():
        raise ConfigError(f"{path}: no such file")
    if path.suffix not in SUFFIXES:
        raise ConfigError(f"{path}: the name of a checkpoint ends in {', '.join(SUFFIXES)}")
    try:
        content = _content(path)
    except ConfigError:
        raise
    except Exception as error:  # a broken file raises errors of any type
        raise ConfigError(
            f"{path} is not a checkpoint that contains only data ({unreadable(error)})"
        ) from error
    if not isinstance(content, Mapping):
        raise ConfigError(f"{path} contains a {type(content).__name__}, not a mapping from names to weights")
    key = next((key for key in WEIGHT_KEYS if isinstance(content.get(key), Mapping)), None)
    weights = {
        _unwrap(str(name)): tensor
        for name, value in (content[key] if key else content).items()
        if (tensor := _tensor(value)) is not None
    }
    if not weights:
        raise ConfigError(f"{path} contains no weights")
    other_keys = [str(other) for other in content if other != key] if key else []
    return Checkpoint(weights, tuple(other_keys), str(content.get("__author__", "")))


def _content(path: Path) -> Any:
    if path.suffix == ".safetensors":
        return read_safetensors(path)[0]
    if path.suffix == ".pkl":
        return read_pickle(path)
    return read_torch_file(path)


def _unwrap(name: str) -> str:
    for wrapper in WRAPPERS:
        name = name.removeprefix(wrapper)
    return name


def _tensor(value: Any) -> Tensor | None:
    if isinstance(value, np.ndarray):
        # torch needs the byte order of the machine, and a writable array
        return torch.from_numpy(value.astype(value.dtype.newbyteorder("="), copy=True))
    return value.detach() if isinstance(value, Tensor) else None
