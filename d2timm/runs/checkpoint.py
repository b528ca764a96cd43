"""Checkpoints that are written atomically and read without executing code."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from shutil import disk_usage
from typing import Any
from urllib.parse import ParseResult, urlparse
from zipfile import ZipFile, is_zipfile

import torch
from detectron2.checkpoint import DetectionCheckpointer
from omegaconf import DictConfig, OmegaConf
from safetensors.torch import load_file
from torch import Tensor, nn

from ..errors import ConfigError
from ..utils.files import atomic_write
from ..utils.text import first_line, one_line

__all__ = [
    "AVERAGE",
    "LAST",
    "AtomicCheckpointer",
    "check_finite",
    "check_fit",
    "find_checkpoint",
    "is_averaged",
    "load_weights",
    "read_checkpoint",
]

logger = logging.getLogger(__name__)

LAST = "last_checkpoint"  # the file with the name of the checkpoint to resume from
#: Key of the averaged weights in a checkpoint, next to "model"
AVERAGE = "ema"


class AtomicCheckpointer(DetectionCheckpointer):
    """detectron2's checkpointer for a process that may be killed at any moment.

    A file appears under its final name once all of it is on the disk, and only then does
    ``last_checkpoint`` refer to it. Files are read as weights only: no code in them is executed.

    Args:
        args: positional arguments of detectron2's checkpointer.
        strict: whether every weight of the model must be in the checkpoint with the same shape; otherwise
            missing weights and other shapes are skipped.
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
        if self._write(name, list(self.checkpointables), **kwargs):
            self.tag_last_checkpoint(f"{name}.pth")

    def save_weights(self, name: str, **kwargs: Any) -> None:
        """Save only the model, and its averaged weights if it has any, as ``name``.pth."""
        self._write(name, [key for key in self.checkpointables if key == AVERAGE], **kwargs)

    def _write(self, name: str, checkpointables: list[str], **kwargs: Any) -> bool:
        if not self.save_dir or not self.save_to_disk:
            return False
        data = {"model": self.model.state_dict(), **kwargs}
        data.update({key: self.checkpointables[key].state_dict() for key in checkpointables})
        file = Path(self.save_dir, f"{name}.pth")
        self.logger.info("Saving checkpoint to %s", file)
        for key in {"model", AVERAGE} & data.keys():
            check_finite(data[key])
        try:
            with atomic_write(file) as partial:
                torch.save(data, partial)
        except (OSError, RuntimeError) as error:  # torch raises RuntimeError if the disk is full
            free = disk_usage(self.save_dir).free // 10**6 if Path(self.save_dir).is_dir() else 0
            reason = (
                error.strerror or str(error) if isinstance(error, OSError) else "the disk is full or broken"
            )
            raise OSError(f"{file} cannot be written: {reason}; {free} MB are free") from error
        return True

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
        _refuse_pickle(filename)
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
        differing = [*incompatible.missing_keys, *(name for name, *_ in incompatible.incorrect_shapes)]
        if self.strict and differing:
            count, example = len(differing), differing[0]
            raise ConfigError(
                f"the checkpoint is of another config: {count} weights differ, such as {example}"
            )
        if self.strict:
            _check_values(own, loaded)
        return incompatible

    def _torch_load(self, f: str) -> dict[str, Any]:
        return read_checkpoint(f)


def read_checkpoint(file: str, lazy: bool = False) -> dict[str, Any]:
    """Read the entries of a checkpoint to the CPU, without executing code.

    Args:
        file: path of a .pth or .safetensors file.
        lazy: whether the numbers of a tensor are read from the disk only when they are used.

    Raises:
        ConfigError: the file cannot be read, because it is cut off or no checkpoint.
    """
    _refuse_pickle(file)
    try:
        if Path(file).suffix == ".safetensors":
            return {"model": load_file(file)}
        zipped = is_zipfile(file)  # earlier versions of torch wrote another format, without checksums
        if zipped and not lazy:
            _verify(file)
        entries = torch.load(file, map_location="cpu", weights_only=True, mmap=lazy and zipped)
    except ConfigError:
        raise
    except UnpicklingError:  # torch's message advises to execute the code in the file
        raise ConfigError(f"{file}: not a checkpoint, because it holds more than weights") from None
    except Exception as error:  # a broken pickle raises errors of any type
        reason = first_line(error, with_type=True).partition(". ")[0]  # torch adds advice
        raise ConfigError(f"{file}: not a checkpoint, or cut off: {reason}") from None
    if not isinstance(entries, dict):
        raise ConfigError(f"{file}: not a checkpoint: it holds {type(entries).__name__}")
    entries = entries if "model" in entries else {"model": entries}
    for key in ("model", AVERAGE):
        _check_weights(file, entries.get(key, {}))
    return entries


def find_checkpoint(folder: Path) -> Path:
    """The newest checkpoint of a run folder that can be resumed from.

    It is the one that ``last_checkpoint`` names; if that is missing or damaged, it is an earlier one, and a
    warning says so.

    Args:
        folder: the run folder, which has ``last_checkpoint``.

    Raises:
        ConfigError: there is none; the message has what is wrong with the last one.
    """
    last = folder / (folder / LAST).read_text().strip()
    earlier = sorted(folder.glob("model_*.pth"), key=lambda file: file.stat().st_mtime_ns, reverse=True)
    problem = ""
    for file in [last, *(file for file in earlier if file != last)]:
        try:
            if not file.is_file():
                raise ConfigError(f"{folder / LAST} refers to {file.name}, which does not exist")
            if is_zipfile(file):
                _verify(str(file))
            complete = "trainer" in read_checkpoint(str(file), lazy=True)
        except ConfigError as error:
            problem = problem or str(error)
            continue
        if file == last or complete:
            if problem:
                logger.warning("%s; continuing from %s, which is older", problem, file.name)
            return file
    raise ConfigError(
        f"--resume: {problem}, and {folder} has no other checkpoint; train anew without --resume"
    )


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


def _check_values(own: Mapping[str, Any], loaded: Mapping[str, Any]) -> None:
    """Raise ConfigError if weights are of another type than those of the model, or not finite."""
    for name, value in loaded.items():
        if value.is_floating_point() != own[name].is_floating_point():
            raise ConfigError(f"the checkpoint is of another config: {name} is of type {value.dtype}")
    check_finite(loaded)


def _verify(file: str) -> None:
    """Compare the checksum of each part of a file that ``torch.save`` wrote."""
    with ZipFile(file) as opened:
        if broken := opened.testzip():
            raise ConfigError(f"{file}: damaged: the checksum of {broken} is wrong")


def _check_weights(file: str, weights: Any) -> None:
    """Raise ConfigError if an entry of a checkpoint is anything but dense tensors by their names."""
    if not isinstance(weights, dict):
        raise ConfigError(f"{file}: not a checkpoint: its weights are of type {type(weights).__name__}")
    for name, value in weights.items():
        dense = isinstance(value, Tensor) and value.layout == torch.strided and not value.is_meta
        if not isinstance(name, str) or not dense or value.is_complex() or value.is_quantized:
            kind = f"{value.dtype} tensor" if isinstance(value, Tensor) else type(value).__name__
            raise ConfigError(f"{file}: not a checkpoint: {one_line(name)} is no weight, but of type {kind}")


def _refuse_pickle(file: str) -> None:
    if Path(file).suffix in (".pkl", ".pyth"):
        raise ConfigError(
            f"{file}: reading a pickle can run code; `d2timm convert-weights` makes a .pth file of it"
        )


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
