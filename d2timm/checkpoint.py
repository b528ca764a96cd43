"""Checkpoints that are whole or not there, and that hold nothing but data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from detectron2.checkpoint import DetectionCheckpointer

from .errors import ConfigError
from .files import whole

__all__ = ["AtomicCheckpointer"]


class AtomicCheckpointer(DetectionCheckpointer):
    """detectron2's checkpointer for a process that may be killed at any moment.

    A file appears under its name only when all of it is on the disk, and only then does
    ``last_checkpoint`` name it. Files are read as weights only: nothing in them is executed.

    Args:
        args: those of detectron2's.
        strict: whether a checkpoint must be of this very model; if not, what differs in shape is skipped.
        checkpointables: those of detectron2's.

    Raises:
        ConfigError: a file that is a pickle, or with ``strict`` one of another model.
    """

    def __init__(self, *args: Any, strict: bool = False, **checkpointables: Any) -> None:
        super().__init__(*args, **checkpointables)
        self.strict = strict

    def save(self, name: str, **kwargs: Any) -> None:
        """Save the model and all else that is checkpointed as ``name``.pth."""
        if not self.save_dir or not self.save_to_disk:
            return
        data = {"model": self.model.state_dict(), **kwargs}
        data.update({key: obj.state_dict() for key, obj in self.checkpointables.items()})
        file = Path(self.save_dir, f"{name}.pth")
        self.logger.info("Saving checkpoint to %s", file)
        with whole(file) as partial:
            torch.save(data, partial)
        self.tag_last_checkpoint(file.name)

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Name the checkpoint to resume from."""
        with whole(Path(self.save_dir, "last_checkpoint")) as partial:
            partial.write_text(last_filename_basename)

    def _load_file(self, filename: str) -> dict[str, Any]:
        if Path(filename).suffix in (".pkl", ".pyth"):
            raise ConfigError(f"{filename}: a pickle can run code when it is read; convert it to .pth")
        data: dict[str, Any] = super()._load_file(filename)
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
        return dict(torch.load(f, map_location="cpu", weights_only=True))
