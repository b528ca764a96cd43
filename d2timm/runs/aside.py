"""Make room for a new run in the folder of an earlier one."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

from ..errors import ConfigError
from .record import FILE, is_held

__all__ = ["check_folder", "move_aside"]

#: What runs write to their folders
WRITTEN = (
    *("config.yaml", FILE, "skipped.json", "metrics.json", "log.txt*", "output.txt", "events.out.tfevents.*"),
    *("last_checkpoint", "model_*.pth", "predictions.png", "report.html"),
    *("inference", "inference_TTA"),
    *(".wandb_id", ".mlflow_id", "wandb"),
)


def check_folder(folder: Path, label: str) -> None:
    """Raise ConfigError unless a folder exists or can be created; ``label`` is the key that names it."""
    existing = next(place for place in [folder, *folder.absolute().parents] if place.exists())
    if not existing.is_dir():
        raise ConfigError(f"{label}={folder}: {existing} is a file, not a folder")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise ConfigError(f"{label}={folder}: {existing} cannot be written")


def move_aside(folder: Path) -> None:
    """Rename the folder of an earlier run to ``NAME~1``, or the next free number.

    If it cannot be renamed, as the current folder or a mount point, the files of the run are moved to
    ``run~1`` in it. A folder without a record stays as it is.

    Raises:
        ConfigError: another process trains in the folder.
    """
    if not (folder / FILE).is_file():
        return
    if is_held(folder):  # another command may have started since the first check
        raise ConfigError(f"{folder}: another process trains there")
    place = folder.resolve()
    new = _free(place.with_name(place.name))
    try:
        if Path.cwd().is_relative_to(place):
            raise OSError("this process is in the folder")
        place.rename(new)
    except OSError:
        new = _free(place / "run")
        new.mkdir()
        for file in list(itertools.chain.from_iterable(map(place.glob, WRITTEN))):
            file.rename(new / file.name)
    print(f"{folder} contained an earlier run, which is now {new} (use --resume to continue a run)")


def _free(path: Path) -> Path:
    """The first of ``NAME~1``, ``NAME~2``, … that does not exist."""
    names = (path.with_name(f"{path.name}~{number}") for number in itertools.count(1))
    return next(name for name in names if not name.exists())
