"""``train.init_heads``: neck and heads of a trained detector under any backbone."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from detectron2.engine import HookBase
from torch import Tensor, nn

from ..errors import ConfigError
from ..runs.checkpoint import last_checkpoint
from ..runs.checkpoint_file import AVERAGE, read_checkpoint

__all__ = ["FitNewWeights", "check_heads", "load_heads"]

logger = logging.getLogger(__name__)

BACKBONE = "backbone.bottom_up."


def check_heads(source: str, model: nn.Module) -> None:
    """Check that a detector has neck or heads that fit another one.

    Args:
        source: ``train.init_heads``, a file of weights or a run folder.
        model: the other detector, on any device.

    Raises:
        ConfigError: there is no such file, it cannot be read, or nothing of it fits.
    """
    fitting = _fitting(_read(source, lazy=True), model)
    if not fitting:
        raise ConfigError(f"train.init_heads={source}: no weight of its neck and heads fits this detector")


def load_heads(source: str, model: nn.Module) -> dict[str, Any]:
    """Copy what fits of the neck and the heads of a detector into another one.

    A weight fits if it has the same name and shape. Layers that depend on the channels of the backbone or on
    the number of classes start anew where these differ.

    Args:
        source: ``train.init_heads``, a file of weights or a run folder.
        model: the other detector, changed in place.

    Returns:
        ``source``, ``taken``, a number, and ``new``, the names of the parameters outside of the backbone
        that keep their initial values.
    """
    fitting = _fitting(_read(source), model)
    with torch.no_grad():
        own = model.state_dict()
        for name, value in fitting.items():
            own[name].copy_(value)
    new = [
        name for name, _ in model.named_parameters() if not name.startswith(BACKBONE) and name not in fitting
    ]
    logger.info("Took %d weights of neck and heads from %s", len(fitting), source)
    logger.info("These start anew: %s", ", ".join(_layers(new)) or "none")
    return {"source": source, "taken": len(fitting), "new": new}


class FitNewWeights(HookBase):
    """Trains only some parameters for the first iterations of a run, and all of them after that.

    Args:
        model: the detector.
        names: the parameters that are trained from the beginning.
        iterations: number of iterations in which the others keep their values.
    """

    def __init__(self, model: nn.Module, names: Collection[str], iterations: int) -> None:
        known = set(names)
        self.others = [parameter for name, parameter in model.named_parameters() if name not in known]
        self.iterations = iterations

    def after_backward(self) -> None:
        """Leave out the gradients of the other parameters, which their optimizer then skips."""
        if self.trainer.iter < self.iterations:
            for parameter in self.others:
                parameter.grad = None


def _read(source: str, lazy: bool = False) -> Mapping[str, Tensor]:
    path = Path(source)
    if path.is_dir():
        path = last_checkpoint(path)
    elif not path.is_file():
        raise ConfigError(f"train.init_heads={source}: no such file or run folder")
    entries = read_checkpoint(str(path), lazy)
    weights: Mapping[str, Tensor] = entries.get(AVERAGE) or entries["model"]
    return weights


def _fitting(weights: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    own = model.state_dict()
    return {
        name: value
        for name, value in weights.items()
        if not name.startswith(BACKBONE) and name in own and value.shape == own[name].shape
    }


def _layers(names: Collection[str]) -> list[str]:
    """Names of the layers that have parameters of these names."""
    return list(dict.fromkeys(name.rpartition(".")[0] for name in names))
