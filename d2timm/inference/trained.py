"""Open a trained detector from a run folder or from an exported file of weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from detectron2.data import MetadataCatalog
from detectron2.data.catalog import Metadata
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import nn

from ..config import lazy as config
from ..config.build import build_model, resolve_dataset
from ..config.received import check_resolvers
from ..data.catalog import dataset_name, get_dataset, tasks_of
from ..errors import ConfigError
from ..runs.checkpoint import LAST, last_checkpoint, load_weights
from ..runs.record import Record
from ..utils.json_file import parse_json
from ..utils.safetensors_file import read_safetensors
from ..utils.text import first_line, one_line

__all__ = ["Trained", "damage_explained", "open_run"]

CONFIG = "config.yaml"
MERGED = ".safetensors"
#: Parts of a config without which a detector cannot be used, and those that are built
PARTS = ("train", "data")
BUILT = ("model", "model.backbone", "model.backbone.bottom_up", "dataloader.test.mapper")


@dataclass(frozen=True)
class Trained:
    """A trained detector, ready for inference.

    Attributes:
        cfg: its config; ``data.labels`` has the names of its classes, so that no data files are needed.
        model: in eval mode, on the requested device.
        weights: the file that the weights were read from.
    """

    cfg: DictConfig
    model: nn.Module
    weights: Path

    @property
    def tasks(self) -> list[str]:
        """Its tasks, by the names in ``d2timm.data.tasks``."""
        return tasks_of(self.cfg.data)

    @property
    def labels(self) -> dict[str, list[str]]:
        """Names of ``classes``, ``stuff`` and ``keypoints``."""
        return get_dataset(self.cfg.data).labels(self.tasks)

    @property
    def metadata(self) -> Metadata:
        """The same names in the form that detectron2's visualizer takes."""
        return MetadataCatalog.get(dataset_name(self.cfg.data, "val"))


def open_run(path: str | Path, weights: str | Path | None = None, device: str | None = None) -> Trained:
    """Build the detector of a run and load its trained weights.

    Args:
        path: a run folder, or a ``.safetensors`` file that was exported from one.
        weights: a checkpoint of the run, such as ``model_best.pth``: a path, or a name in the run folder;
            None: the last checkpoint.
        device: such as ``cuda`` or ``cpu``; None: a GPU if there is one.

    Raises:
        ConfigError: the path is not a run folder, the run has no weights yet, the weights belong to another
            model, or the device is not available.
    """
    path = Path(path)
    with damage_explained(path):
        return _open(path, weights, _check_device(device))


@contextmanager
def damage_explained(path: Path) -> Iterator[None]:
    """Raise ConfigError if a block needs a value of a run's config that is missing, or cannot be resolved."""
    try:
        yield
    except OmegaConfBaseException as error:
        raise ConfigError(f"{path}: its config is damaged: {one_line(error)}") from None


def _open(path: Path, weights: str | Path | None, device: str) -> Trained:
    if path.suffix == MERGED and not path.is_dir():
        if weights is not None:
            raise ConfigError(f"{path} contains its own weights: leave out {weights}")
        return _open_merged(path, device)
    cfg = _read_config(path)
    checkpoint = _find_checkpoint(path, weights)
    cfg.train.device = device
    model = build_model(cfg, weights=False)
    load_weights(cfg.train, model, str(checkpoint))
    return Trained(cfg, model.eval(), checkpoint)


def _check_device(device: str | None) -> str:
    """Return the device to run on, or raise ConfigError if it is not available."""
    if device is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device={device}: {first_line(error)}") from None
    return device


def _read_config(folder: Path) -> DictConfig:
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such run folder")
    if not (folder / CONFIG).is_file():
        raise ConfigError(f"{folder} is not a run folder: it has no {CONFIG}")
    cfg = config.load(folder / CONFIG)
    config.check_parts(cfg, *PARTS, built=BUILT)
    record = Record.read(folder)
    if record and record.labels:  # records of earlier versions have no labels: their data files are read
        _set_labels(cfg, record.labels)
    resolve_dataset(cfg)
    return cfg


def _set_labels(cfg: DictConfig, labels: Mapping[str, Any]) -> None:
    """Put the names of classes, stuff and keypoints into a config."""
    check_resolvers(labels, "the class names")
    OmegaConf.update(cfg, "data.labels", dict(labels), force_add=True)


def _find_checkpoint(folder: Path, weights: str | Path | None) -> Path:
    """The requested checkpoint, or the last one.

    Raises:
        ConfigError: the file does not exist.
    """
    if weights is not None:
        candidates = [file for file in (Path(weights), folder / weights) if file.is_file()]
        if not candidates:
            available = ", ".join(sorted(file.name for file in folder.glob("*.pth"))) or "no checkpoint"
            raise ConfigError(f"{weights}: no such file; {folder} has {available}")
        return candidates[0]
    if not (folder / LAST).is_file():
        raise ConfigError(f"{folder} has no {LAST}: train first, or give the weights to use")
    return last_checkpoint(folder)


def _open_merged(file: Path, device: str) -> Trained:
    """Open a file with weights, config and labels, written by ``d2timm export``."""
    if not file.is_file():
        raise ConfigError(f"{file}: no such file")
    state, metadata = read_safetensors(file)
    if not {"config", "labels"} <= metadata.keys():
        raise ConfigError(f"{file} has weights but no config: use a file written by `d2timm export`")
    cfg = config.parse(metadata["config"], str(file))
    config.check_parts(cfg, *PARTS, built=BUILT)
    labels = parse_json(metadata["labels"], f"{file}: its metadata labels")
    if not isinstance(labels, dict):
        raise ConfigError(f"{file}: its labels are damaged: {one_line(labels)}")
    _set_labels(cfg, labels)
    resolve_dataset(cfg)
    cfg.train.device = device
    model = build_model(cfg, weights=False)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise ConfigError(f"{file}: {one_line(error)}") from None
    return Trained(cfg, model.eval(), file)
