"""Checkpoints that are written atomically and read without executing code."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import ParseResult, urlparse

import torch
from detectron2.checkpoint import DetectionCheckpointer
from omegaconf import DictConfig, OmegaConf
from torch import nn

from ..errors import ConfigError
from ..utils.files import atomic_write, disk_errors
from ..utils.text import one_line
from ..utils.torch_file import verify
from .checkpoint_file import AVERAGE, check_finite, read_checkpoint, refuse_pickle

__all__ = [
    "LAST",
    "AtomicCheckpointer",
    "find_checkpoint",
    "is_averaged",
    "last_checkpoint",
    "load_weights",
]

logger = logging.getLogger(__name__)

LAST = "last_checkpoint"  # the file with the name of the checkpoint to resume from
PIXELS = ("pixel_mean", "pixel_std")  # which are in checkpoints of earlier versions of detectron2


class AtomicCheckpointer(DetectionCheckpointer):
    """detectron2's checkpointer for a process that may be killed at any moment.

    A file appears under its final name once all of it is on the disk, and only then does
    ``last_checkpoint`` refer to it. Files are read as weights only: no code in them is executed.

    Args:
        args: positional arguments of detectron2's checkpointer.
        strict: whether the weights of the checkpoint must be those of the model, with the same shapes;
            otherwise those that differ are skipped.
        averaged: whether the model gets the averaged weights of a checkpoint instead of the trained ones.
        checkpointables: keyword arguments of detectron2's checkpointer.

    Raises:
        ConfigError: on loading, if a file is a pickle, lacks a required entry, or with ``strict`` belongs to
            another model.
    """

    def __init__(
        self, *args: Any, strict: bool = False, averaged: bool = False, **checkpointables: Any
    ) -> None:
        super().__init__(*args, **checkpointables)
        self.strict = strict
        self.averaged = averaged
        self._required: list[str] = []  # entries that the file being loaded must have

    def save(self, name: str, **kwargs: Any) -> None:
        """Save the model and all checkpointables as ``name``.pth, as the checkpoint to resume from."""
        if self.save_dir and self.save_to_disk:
            self.write(name, self.entries(**kwargs))

    def save_weights(self, name: str, **kwargs: Any) -> None:
        """Save only the model, and its averaged weights if it has any, as ``name``.pth."""
        if self.save_dir and self.save_to_disk:
            self._write(name, self._entries([key for key in self.checkpointables if key == AVERAGE], kwargs))

    def entries(self, **kwargs: Any) -> dict[str, Any]:
        """Return what ``save`` writes; its tensors are those of the training, which changes them.

        Raises:
            ConfigError: a weight is not finite.
        """
        return self._entries(list(self.checkpointables), kwargs)

    def write(self, name: str, entries: Mapping[str, Any]) -> None:
        """Write entries as ``name``.pth, as the checkpoint to resume from.

        Raises:
            OSError: it cannot be written; the one before remains.
        """
        self._write(name, entries)
        self.tag_last_checkpoint(f"{name}.pth")

    def _entries(self, checkpointables: list[str], more: dict[str, Any]) -> dict[str, Any]:
        data = {"model": self.model.state_dict(), **more}
        data.update({key: self.checkpointables[key].state_dict() for key in checkpointables})
        for key in {"model", AVERAGE} & data.keys():
            check_finite(data[key])
        return data

    def _write(self, name: str, data: Mapping[str, Any]) -> None:
        file = Path(self.save_dir, f"{name}.pth")
        self.logger.info("Saving checkpoint to %s", file)
        with disk_errors(file, RuntimeError), atomic_write(file) as partial:
            torch.save(data, partial)

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Write the name of the checkpoint to resume from."""
        with atomic_write(Path(self.save_dir, LAST)) as partial:
            partial.write_text(last_filename_basename)

    def load(self, path: str, checkpointables: list[str] | None = None) -> dict[str, Any]:
        """Load the model, and all checkpointables or those that are listed; returns the other entries."""
        self._required = list(self.checkpointables) if checkpointables is None else checkpointables
        rest: dict[str, Any]
        if not _changes_as_url(path) or not Path(path).is_file():
            rest = super().load(path, checkpointables)
            return rest
        # without detectron2's step that reads the path as a URL
        self._parsed_url_during_load: ParseResult | None = urlparse("")
        try:
            rest = super(DetectionCheckpointer, self).load(path, checkpointables)
        finally:
            self._parsed_url_during_load = None
        return rest

    def _load_file(self, filename: str) -> dict[str, Any]:
        refuse_pickle(filename)
        data: dict[str, Any] = super()._load_file(filename)
        for key in [*self._required, AVERAGE] if self.averaged else self._required:
            if key not in data:
                fix = ": use train.ema.enabled=False" if key == AVERAGE else ""
                raise ConfigError(f"{filename} has no entry {key!r}{fix}")
        if self.averaged:
            data["model"] = data.pop(AVERAGE)
        return data

    def _load_model(self, checkpoint: Any) -> Any:
        own = self.model.state_dict()
        loaded = {name: value for name, value in checkpoint["model"].items() if name in own}
        incompatible = super()._load_model(checkpoint)
        unknown = [name for name in incompatible.unexpected_keys if name not in PIXELS]
        shapes = [name for name, *_ in incompatible.incorrect_shapes]
        if self.strict and (differing := [*incompatible.missing_keys, *shapes, *unknown]):
            count, example = len(differing), differing[0]
            raise ConfigError(
                f"the checkpoint is of another config: {count} weights differ, such as {example}"
            )
        if self.strict:
            _check_values(own, loaded)
        return incompatible

    def _torch_load(self, f: str) -> dict[str, Any]:
        return read_checkpoint(f)


def last_checkpoint(folder: Path) -> Path:
    """The checkpoint that the file ``last_checkpoint`` of a run folder names.

    Raises:
        ConfigError: the file is damaged, or the checkpoint does not exist.
    """
    tag = folder / LAST
    try:
        name = tag.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{tag} cannot be read: {one_line(error)}") from None
    if Path(name).name != name:
        raise ConfigError(f"{tag} refers to {one_line(name) or 'nothing'}, which is no file of its folder")
    if not os.path.isfile(folder / name):  # Path.is_file raises errors for names that are too long
        raise ConfigError(f"{tag} refers to {one_line(name)}, which does not exist")
    return folder / name


def find_checkpoint(folder: Path) -> Path:
    """The newest checkpoint of a run folder that can be resumed from.

    It is the one that ``last_checkpoint`` names; if that is missing or damaged, it is an earlier one, and a
    warning says so.

    Args:
        folder: the run folder, which has ``last_checkpoint``.

    Raises:
        ConfigError: there is none; the message has what is wrong with the last one.
    """
    try:
        last = last_checkpoint(folder)
        _check_whole(last)
        return last
    except ConfigError as error:
        problem = str(error)
    earlier = sorted(folder.glob("model_*.pth"), key=lambda file: file.stat().st_mtime_ns, reverse=True)
    for file in earlier:
        with suppress(ConfigError):
            if "trainer" in _check_whole(file):
                logger.warning("%s; continuing from %s, which is older", problem, file.name)
                return file
    raise ConfigError(
        f"--resume: {problem}, and {folder} has no other checkpoint; train anew without --resume"
    )


def _check_whole(file: Path) -> dict[str, Any]:
    """Return the entries of a checkpoint; raises ConfigError if one is damaged."""
    verify(file)
    return read_checkpoint(str(file), lazy=True)


def _check_values(own: Mapping[str, Any], loaded: Mapping[str, Any]) -> None:
    """Raise ConfigError if weights are of another type than those of the model, or not finite."""
    for name, value in loaded.items():
        if value.is_floating_point() != own[name].is_floating_point():
            raise ConfigError(f"the checkpoint is of another config: {name} is of type {value.dtype}")
    check_finite(loaded)


def _changes_as_url(path: str) -> bool:
    """Whether a path is another one as a URL, which has no ``?`` and no line breaks."""
    return urlparse(path)._replace(query="").geturl() != path


def is_averaged(train: DictConfig) -> bool:
    """Return whether evaluations, pictures and exports of a run use its averaged weights.

    Args:
        train: the node ``train`` of its config.
    """
    return bool(OmegaConf.select(train, "ema.enabled"))


def load_weights(train: DictConfig, model: nn.Module, file: str) -> None:
    """Load a checkpoint of a run to evaluate, predict or export with it.

    Args:
        train: the node ``train``; ``ema.enabled`` selects the averaged or the trained weights.
        model: the detector that the same config builds.
        file: path of the checkpoint.

    Raises:
        ConfigError: the file belongs to another model, or has no averaged weights although they are selected.
    """
    averaged = is_averaged(train)
    AtomicCheckpointer(model, strict=True, averaged=averaged).load(file)
    logger.info("Loaded the %s weights of %s", "averaged" if averaged else "trained", file)
