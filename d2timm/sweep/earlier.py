"""An earlier run in a folder: whether a job continues it, and whether it is the same run."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..config.lazy import load, to_plain
from ..config.train_options import last_iteration
from ..errors import ConfigError
from ..runs.record import Record
from ..utils.trees import flatten

__all__ = ["LOST", "check_same", "is_open"]

#: Keys of ``train`` that may change when a run is continued
CHANGEABLE = ("output_dir", "pause_at", "cool_down", "stop_below_median", "threads", "writers")
LOST = "its worker process was killed"  # why a run ended that a launcher had started


def is_open(earlier: Record, tree: dict[str, Any], options: argparse.Namespace) -> bool:
    """Whether a run that no process trains is to be continued or repeated."""
    if earlier.status == "failed":
        return bool(options.repeat_failed)
    if earlier.status == "interrupted":
        return options.resume_lost or earlier.error != LOST
    if earlier.status == "running":
        return options.resume_lost or not earlier.error
    end = last_iteration(tree["train"]["pause_at"], earlier.max_iter)
    return not earlier.stopped and earlier.iterations < end


def check_same(tree: dict[str, Any], folder: Path) -> None:
    """Raise ConfigError if a folder holds a run with other settings."""
    file = folder / "config.yaml"
    if not file.is_file():
        return  # the run was interrupted before it had one
    old = flatten(to_plain(load(file)), lists=True)
    new = flatten(tree, lists=True)
    if new["data.name"] == "auto":
        new["data.name"] = old.get("data.name")  # resolved only when a run starts
    changeable = {f"train.{key}" for key in CHANGEABLE}
    if new.get("train.recipe") or new.get("optimizer.opt") == "auto":  # which has set other values since
        from ..engine.recipes import recipe_keys  # imports torch

        changeable |= {"train.recipe", *recipe_keys()}
    for key in changeable:
        old.pop(key, None)
        new.pop(key, None)
    differing = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
    if differing:
        key = differing[0]
        raise ConfigError(
            f"{folder} holds a run with other settings, such as {key}={old.get(key)} instead of "
            f"{new.get(key)}: choose another hydra.sweep.dir"
        )
