"""Checkpoints that are whole or not there, and that hold nothing but data."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from detectron2.checkpoint import DetectionCheckpointer
from omegaconf import DictConfig, OmegaConf
from safetensors.torch import load_file
from torch import nn

from ..errors import ConfigError
from ..utils.files import atomic_write

__all__ = ["AVERAGE", "AtomicCheckpointer", "is_averaged", "load_weights"]

logger = logging.getLogger(__name__)

AVERAGE = "ema"  # key of averaged weights in a checkpoint, beside "model"


class AtomicCheckpointer(DetectionCheckpointer):
    """detectron2's checkpointer for a process that may be killed at any moment.

    A file appears under its name only when all of it is on the disk, and only then does
    ``last_checkpoint`` name it. Files are read as weights only: nothing in them is executed.

    Args:
        args: those of detectron2's.
        strict: whether a checkpoint must be of this very model; if not, what differs in shape is skipped.
        averaged: whether the model takes the averaged weights of a checkpoint, not those trained.
        checkpointables: those of detectron2's.

    Raises:
        ConfigError: a file that is a pickle, one that lacks what is to be loaded, or with ``strict`` one of
            another model.
    """

    def __init__(
        self, *args: Any, strict: bool = False, averaged: bool = False, **checkpointables: Any
    ) -> None:
        super().__init__(*args, **checkpointables)
        self.strict = strict
        self.averaged = averaged
        self._needed: list[str] = []  # of the file that is being loaded

    def save(self, name: str, **kwargs: Any) -> None:
        """Save the model and all else that is checkpointed as ``name``.pth, to resume from."""
        if self._write(name, list(self.checkpointables), **kwargs):
            self.tag_last_checkpoint(f"{name}.pth")

    def save_weights(self, name: str, **kwargs: Any) -> None:
        """Save the model, and its averaged weights if it has any, as ``name``.pth, not to resume from."""
        self._write(name, [key for key in self.checkpointables if key == AVERAGE], **kwargs)

    def _write(self, name: str, checkpointables: list[str], **kwargs: Any) -> bool:
        if not self.save_dir or not self.save_to_disk:
            return False
        data = {"model": self.model.state_dict(), **kwargs}
        data.update({key: self.checkpointables[key].state_dict() for key in checkpointables})
        file = Path(self.save_dir, f"{name}.pth")
        self.logger.info("Saving checkpoint to %s", file)
        with atomic_write(file) as partial:
            torch.save(data, partial)
        return True

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Name the checkpoint to resume from."""
        with atomic_write(Path(self.save_dir, "last_checkpoint")) as partial:
            partial.write_text(last_filename_basename)

    def load(self, path: str, checkpointables: list[str] | None = None) -> dict[str, Any]:
        """Load the model and all else that is checkpointed, or what is named of it."""
        self._needed = list(self.checkpointables) if checkpointables is None else checkpointables
        rest: dict[str, Any] = super().load(path, checkpointables)
        return rest

    def _load_file(self, filename: str) -> dict[str, Any]:
        if Path(filename).suffix in (".pkl", ".pyth"):
            raise ConfigError(
                f"{filename}: a pickle can run code when it is read; scripts/convert_weights.py makes a .pth"
            )
        data: dict[str, Any] = super()._load_file(filename)
        for key in [*self._needed, AVERAGE] if self.averaged else self._needed:
            if key not in data:
                fix = ": use train.ema.enabled=False" if key == AVERAGE else ""
                raise ConfigError(f"{filename} holds no {key!r}{fix}")
        if self.averaged:
            data["model"] = data.pop(AVERAGE)
        return data

    def _load_model(self, checkpoint: Any) -> Any:
        found = super()._load_model(checkpoint)
        differing = [*found.missing_keys, *(name for name, *_ in found.incorrect_shapes)]
        if self.strict and differing:
            raise ConfigError(
                f"the checkpoint is of another config: {len(differing)} weights differ, as {differing[0]}"
            )
        return found

    def _torch_load(self, f: str) -> dict[str, Any]:
        if Path(f).suffix == ".safetensors":
            return {"model": load_file(f)}
        return dict(torch.load(f, map_location="cpu", weights_only=True))


def is_averaged(train: DictConfig) -> bool:
    """Whether a run uses its averaged weights: in evaluations, pictures and exports.

    Args:
        train: the node ``train`` of its config.
    """
    return bool(OmegaConf.select(train, "ema.enabled"))


def load_weights(train: DictConfig, model: nn.Module, file: str) -> None:
    """Load a checkpoint of a run for anything but training.

    Args:
        train: the node ``train``; ``ema.enabled`` decides which of the checkpoint's weights are loaded.
        model: the detector of the same config.
        file: the checkpoint.

    Raises:
        ConfigError: a file of another model, or one without averaged weights where they are needed.
    """
    averaged = is_averaged(train)
    AtomicCheckpointer(model, strict=True, averaged=averaged).load(file)
    logger.info("Loaded the %s weights of %s", "averaged" if averaged else "trained", file)
