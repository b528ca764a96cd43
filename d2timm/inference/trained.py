"""A trained detector, from the folder of its run or from a file of merged weights."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from detectron2.data import MetadataCatalog
from detectron2.data.catalog import Metadata
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import nn

from ..config import lazy as config
from ..config.build import build_model, resolve_dataset
from ..data.catalog import dataset_name, get_dataset, tasks_of
from ..errors import ConfigError
from ..runs.checkpoint import load_weights
from ..runs.record import Record

__all__ = ["Trained", "open_run"]

logger = logging.getLogger(__name__)

CONFIG, FINAL = "config.yaml", "last_checkpoint"
MERGED = ".safetensors"


@dataclass(frozen=True)
class Trained:
    """A trained detector, ready to be used.

    Attributes:
        cfg: its tree, settled; ``data.labels`` has its names, so that no data files are needed.
        model: in eval mode, on the device that was asked for.
        weights: the file that they come from.
    """

    cfg: DictConfig
    model: nn.Module
    weights: Path

    @property
    def tasks(self) -> list[str]:
        """What it finds, in the names of ``d2timm.data.tasks``."""
        return tasks_of(self.cfg.data)

    @property
    def labels(self) -> dict[str, list[str]]:
        """Names of ``classes``, ``stuff`` and ``keypoints``."""
        return get_dataset(self.cfg.data).labels(self.tasks)

    @property
    def metadata(self) -> Metadata:
        """The names as detectron2's visualizer takes them."""
        return MetadataCatalog.get(dataset_name(self.cfg.data, "val"))


def open_run(path: str | Path, weights: str | Path | None = None, device: str | None = None) -> Trained:
    """Make the detector of a run with its trained weights.

    Args:
        path: the folder of a run, or a file of merged weights (.safetensors) that was exported from one.
        weights: another checkpoint of the run, such as ``model_best.pth``: a path, or a name in the folder;
            None: the last one.
        device: such as ``cuda`` or ``cpu``; None: a GPU where there is one.

    Raises:
        ConfigError: it is no run, it has no weights yet, they are of another model, or the device is
            not there.
    """
    path = Path(path)
    device = check_device(device)
    if path.suffix == MERGED and not path.is_dir():
        if weights is not None:
            raise ConfigError(f"{path} has weights of its own: leave out {weights}")
        return _open_merged(path, device)
    cfg = _read_config(path)
    file = _weights(path, weights)
    cfg.train.device = device
    model = _build(cfg, path)
    load_weights(cfg.train, model, str(file))
    return Trained(cfg, model.eval(), file)


def check_device(device: str | None) -> str:
    """The device to run on.

    Raises:
        ConfigError: there is none of that name.
    """
    if device is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:  # torch's own words, the first line of many
        raise ConfigError(f"device={device}: {str(error).splitlines()[0]}") from None
    return device


def _read_config(folder: Path) -> DictConfig:
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder of a run")
    if not (folder / CONFIG).is_file():
        raise ConfigError(f"{folder} is not the folder of a run: it has no {CONFIG}")
    cfg = config.load(folder / CONFIG)
    record = Record.read(folder)
    if record and record.labels:  # runs of earlier versions ask their data files
        _label(cfg, record.labels)
    resolve_dataset(cfg)
    return cfg


def _label(cfg: DictConfig, labels: Mapping[str, Any]) -> None:
    """Give a tree the names of what its detector tells apart."""
    OmegaConf.update(cfg, "data.labels", dict(labels), force_add=True)


def _weights(folder: Path, named: str | Path | None) -> Path:
    """The checkpoint that was named, or the last one.

    Raises:
        ConfigError: there is none.
    """
    if named is not None:
        found = [file for file in (Path(named), folder / named) if file.is_file()]
        if not found:
            there = ", ".join(sorted(file.name for file in folder.glob("*.pth"))) or "no checkpoint"
            raise ConfigError(f"{named}: no such file; {folder} has {there}")
        return found[0]
    last = folder / FINAL
    if not last.is_file():
        raise ConfigError(f"{folder} has no checkpoint yet: nothing was trained, or it is to be named")
    file = folder / last.read_text().strip()
    if not file.is_file():
        raise ConfigError(f"{file}: no such file, although {last} names it")
    return file


def _build(cfg: DictConfig, path: Path) -> nn.Module:
    try:
        return build_model(cfg, weights=False)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{path}: its config makes no model: {str(error).splitlines()[0]}") from None


def _open_merged(file: Path, device: str) -> Trained:
    if not file.is_file():
        raise ConfigError(f"{file}: no such file")
    try:
        with safe_open(file, framework="pt") as opened:
            told = opened.metadata() or {}
        state = load_file(file)
    except SafetensorError as error:
        raise ConfigError(f"{file}: not a file of weights ({error})") from None
    if not {"config", "labels"} <= told.keys():
        raise ConfigError(f"{file} has weights and no config: scripts/export.py writes files that have both")
    cfg = config.parse(told["config"], str(file))
    _label(cfg, json.loads(told["labels"]))
    resolve_dataset(cfg)
    cfg.train.device = device
    model = _build(cfg, file)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise ConfigError(f"{file}: {' '.join(str(error).split())[:200]}") from None
    return Trained(cfg, model.eval(), file)
