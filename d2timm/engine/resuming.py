"""Check that a checkpoint fits a config that continues or evaluates it, before any file is written."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from contextlib import suppress
from itertools import zip_longest
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from torch import nn

from ..config.lazy import parse, to_plain
from ..data.catalog import get_dataset, tasks_of
from ..errors import ConfigError
from ..runs.checkpoint import LAST, find_checkpoint, is_averaged
from ..runs.checkpoint_file import AVERAGE, read_checkpoint
from ..runs.record import Record
from ..utils.text import one_line
from ..utils.trees import flatten
from .optim import build_optimizer

__all__ = ["check_evaluation", "check_resume"]

#: Entries of a detector's state that detectron2 does not require in a checkpoint, or ignores there
OPTIONAL = ("pixel_mean", "pixel_std", "anchor_generator.cell_anchors")
MOST = 3  # differences that an error lists


def check_resume(cfg: DictConfig, model: nn.Module) -> None:
    """Check that a config can continue the run in its folder, if there is one.

    The schedule, the learning rate, the batch size and the files of the data may change; the detector, its
    classes and the optimizer may not.

    Args:
        cfg: the tree, its dataset resolved.
        model: the detector that it builds, on any device.

    Raises:
        ConfigError: the last checkpoint cannot be read, or belongs to another detector or optimizer; the
            message has what differs, and how to fine-tune instead.
    """
    folder = Path(cfg.train.output_dir)
    if not (folder / LAST).is_file():
        return
    file = find_checkpoint(folder)
    checkpoint = read_checkpoint(str(file), lazy=True)
    changed = _changed_keys(folder, cfg)
    difference = (
        _other_labels(folder, cfg)
        or _other_weights(checkpoint["model"], model, changed)
        or _other_averaging(AVERAGE in checkpoint, cfg)
        or _other_optimizer(checkpoint.get("trainer"), cfg, model, changed)
    )
    if difference:
        final = folder / "model_final.pth"
        weights = shlex.quote(f"train.init_checkpoint={final if final.is_file() else file}")
        raise ConfigError(
            f"--resume: {folder} holds another run: {difference}; to fine-tune it, train in a new folder: "
            f"train.output_dir=NEW {weights}"
        )


def check_evaluation(cfg: DictConfig, model: nn.Module, file: str) -> None:
    """Check that a checkpoint has the weights and the classes of the detector that a config builds.

    Args:
        cfg: the tree, its dataset resolved.
        model: the detector, on any device.
        file: path of the checkpoint; a URL is not checked.

    Raises:
        ConfigError: the file cannot be read, or belongs to another detector.
    """
    if "://" in file:
        return
    checkpoint = read_checkpoint(file, lazy=True)
    averaged = is_averaged(cfg.train)
    if averaged and AVERAGE not in checkpoint:
        raise ConfigError(
            f"--eval-only: {file} has no averaged weights (no entry {AVERAGE!r}): use train.ema.enabled=False"
        )
    folder = Path(file).parent
    weights = checkpoint[AVERAGE if averaged else "model"]
    changed = _changed_keys(folder, cfg)
    difference = _other_labels(folder, cfg) or _other_weights(weights, model, changed, more=True)
    if difference:
        raise ConfigError(f"--eval-only: {file} is the checkpoint of another detector: {difference}")


def _changed_keys(folder: Path, cfg: DictConfig) -> dict[str, str]:
    """Key -> description of its change, for all values that differ from the saved config of a folder.

    Keys that only one of the two has, maybe because versions of d2timm differ, are the last ones.
    """
    with suppress(OSError, ValueError):  # without it, errors name weights instead of keys
        old = flatten(to_plain(parse((folder / "config.yaml").read_text(), "config.yaml")))
        new = flatten(to_plain(cfg))
        keys = sorted({**old, **new}, key=lambda key: (key in old) + (key in new), reverse=True)
        return {
            key: one_line(f"{key}={new.get(key)} instead of {old.get(key)}")
            for key in keys
            if old.get(key) != new.get(key)
        }
    return {}


def _list(changed: Mapping[str, str], *prefixes: str) -> str:
    """The first changes of keys with these prefixes, or ""."""
    texts = [text for key, text in changed.items() if key.startswith(prefixes)]
    return ", ".join(texts[:MOST])


def _other_labels(folder: Path, cfg: DictConfig) -> str:
    """How the names of classes and keypoints differ from those that the run in a folder has recorded."""
    record = None
    with suppress(ValueError, TypeError, AttributeError):  # the file is of another program
        record = Record.read(folder)
    if record is None or not record.labels or "data" not in cfg:
        return ""  # earlier versions record no names
    for kind, new in get_dataset(cfg.data).labels(tasks_of(cfg.data)).items():
        old = record.labels.get(kind, [])
        for index, (before, now) in enumerate(zip_longest(old, new)):
            if before != now:
                same = len(new) == len(old)
                counts = f"other {kind}" if same else f"{len(new)} {kind} instead of {len(old)}"
                return f"the data has {counts}: {_other_label(index, before, now)}"
    return ""


def _other_label(index: int, before: str | None, now: str | None) -> str:
    if before is None:
        return f"{now!r} is new"
    if now is None:
        return f"{before!r} is missing"
    return f"number {index} is {now!r} instead of {before!r}"


def _other_weights(
    weights: Mapping[str, Any], model: nn.Module, changed: Mapping[str, str], more: bool = False
) -> str:
    """How the weights of a checkpoint, which may have ``more``, differ from a model's in names and shapes."""
    old, new = _shapes(weights), _shapes(model.state_dict())
    names = [name for name in (new if more else {**new, **old}) if old.get(name) != new.get(name)]
    if not names:
        return ""
    name = names[0]
    example = f"{len(names)} weights differ, such as {name}: {new.get(name)} instead of {old.get(name)}"
    keys = _list(changed, "model.")
    return f"{keys} ({example})" if keys else example


def _shapes(weights: Mapping[str, Any]) -> dict[str, list[int]]:
    return {
        name.removeprefix("module."): list(
            getattr(value, "shape", ())
        )  # the prefix is that of DistributedDataParallel
        for name, value in weights.items()
        if not any(optional in name for optional in OPTIONAL)
    }


def _other_averaging(averaged: bool, cfg: DictConfig) -> str:
    now = is_averaged(cfg.train)
    return "" if now == averaged else f"train.ema.enabled={now} instead of {averaged}"


def _other_optimizer(
    trainer: Mapping[str, Any] | None, cfg: DictConfig, model: nn.Module, changed: Mapping[str, str]
) -> str:
    """How the optimizer of a checkpoint differs from the one that a config builds."""
    if not trainer or "optimizer" not in trainer:
        return "the checkpoint has weights only, without the state of an optimizer"
    if kinds := _list(changed, "optimizer._target_", "optimizer.opt"):
        return kinds
    old, new = (
        [len(group["params"]) for group in state["param_groups"]]
        for state in (trainer["optimizer"], build_optimizer(cfg, model).state_dict())
    )
    if old == new:
        return ""
    keys = _list(changed, "optimizer.params.", "model.")
    sizes = f"{sum(new)} parameters in {len(new)} groups instead of {sum(old)} in {len(old)}"
    return f"{keys} (the optimizer has {sizes})" if keys else f"the optimizer has {sizes}"
