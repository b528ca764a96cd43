"""The trainings of a choice: each is a run in a process of its own, in a folder that stays."""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from ..config.lazy import find_config, load, to_plain
from ..config.overrides import apply_overrides
from ..engine.recipes import apply_recipe, given_keys
from ..runs.record import Record
from ..sweep import processes, stopping
from ..sweep.slots import share, slot
from ..utils.signals import Interrupted
from .candidates import Wanted
from .parts import part_file

__all__ = ["Ended", "Job", "Trainings"]

#: Flags of ``d2timm train``
FLAGS = {
    **dict.fromkeys(("dry_run", "eval_only", "repeat_failed"), False),
    **dict.fromkeys(("resume", "resume_lost"), True),
    **{"num_gpus": 1, "num_machines": 1, "machine_rank": 0, "dist_url": "auto"},
}
#: Keys of ``data`` that name the images; the parts of a choice replace them
NAMING = ("name", "root", "train_json", "train_images", "val_json", "val_images", "val_share", "val_seed")


SHORTEST = 3.0  # seconds; a process cannot even start in less


@dataclass(frozen=True)
class Job:
    """A training.

    Attributes:
        wanted: the backbone.
        folder: of the run.
        train: the part of the images that it trains on.
        val: the part that it is evaluated on.
        overrides: of the config.
        limit: seconds after which it is interrupted.
        eval_only: whether it evaluates ``train.init_checkpoint`` instead.
    """

    wanted: Wanted
    folder: Path
    train: str
    val: str
    overrides: tuple[str, ...]
    limit: float
    eval_only: bool = False


@dataclass(frozen=True)
class Ended:
    """How a training ended.

    Attributes:
        record: of the run.
        seconds: that its process took, with start, evaluation and end.
        reason: why it has no result; "": it has one.
    """

    record: Record
    seconds: float
    reason: str


class Trainings:
    """Runs the trainings of a choice.

    Args:
        folder: of the choice.
        config_file: the config whose backbone, data and length change.
        overrides: the user's.
        dataset: ``data.name`` of the user's images.
        lanes: how many trainings run at the same time.
    """

    def __init__(
        self, folder: Path, config_file: str, overrides: Sequence[str], dataset: str, lanes: int
    ) -> None:
        self.folder, self.config_file, self.lanes = folder, config_file, lanes
        self._config = load(find_config(config_file))
        own = {f"data.{key}" for key in NAMING}
        kept = [text for text in overrides if text.lstrip("+~").partition("=")[0] not in own]
        settings = f"data.settings.{dataset}."
        self.overrides = [text.replace(settings, "data.settings.custom.", 1) for text in kept]

    def config(self, wanted: Wanted, train: str, val: str, overrides: Sequence[str] = ()) -> DictConfig:
        """The config of a training."""
        return apply_overrides(copy.deepcopy(self._config), self._overrides(wanted, train, val, overrides))

    def prior(self, wanted: Wanted, train: str, val: str) -> tuple[dict[str, Any], DictConfig]:
        """The recipe that a training applies, as its record has it, and the config after that."""
        overrides = self._overrides(wanted, train, val, ())
        cfg = self.config(wanted, train, val)
        return apply_recipe(cfg, given_keys(overrides)), cfg

    def _overrides(self, wanted: Wanted, train: str, val: str, overrides: Sequence[str]) -> list[str]:
        recipe = [] if "train.recipe" in given_keys(self.overrides) else ["train.recipe=auto"]
        return [
            *recipe,
            *self.overrides,
            *wanted.overrides,
            "data.name=custom",
            f"data.train_json={part_file(self.folder, train)}",
            f"data.val_json={part_file(self.folder, val)}",
            "data.train_images=/",
            "data.val_images=/",
            *overrides,
        ]

    def run(self, jobs: Sequence[Job], ended: Callable[[Job, Ended], None]) -> None:
        """Run jobs, several at the same time on a machine with several GPUs.

        Args:
            jobs: in the order in which they start.
            ended: called in this thread for each job that ends.

        Raises:
            Interrupted: a signal asks the choice to stop.
        """
        if self.lanes == 1:
            for job in jobs:
                ended(job, self._run(job))
                _stop_if_asked()
            return
        with ThreadPoolExecutor(self.lanes) as pool:
            futures = {pool.submit(self._run, job): job for job in jobs}
            for future in as_completed(futures):
                ended(futures[future], future.result())
        _stop_if_asked()

    def _run(self, job: Job) -> Ended:
        if stopping.is_requested(job.folder.parent):
            return Ended(Record(status="interrupted"), 0.0, "the choice is stopping")
        if job.limit < SHORTEST:
            return Ended(Record(status="interrupted"), 0.0, "no time is left for it")
        parts = (job.wanted, job.train, job.val, (*job.overrides, f"train.output_dir={job.folder}"))
        cfg = self.config(*parts)
        command = ["d2timm", "train", "--config-file", self.config_file, *self._overrides(*parts)]
        options = argparse.Namespace(**{**FLAGS, "eval_only": job.eval_only})
        job.folder.mkdir(parents=True, exist_ok=True)
        start = time.monotonic()
        tree: dict[str, Any] = to_plain(cfg)
        if self.lanes == 1:
            processes.run_process(tree, job.folder, options, command, {}, job.limit)
        else:
            with slot(self.folder, self.lanes) as number:
                environment = share(number, self.lanes)
                processes.run_process(tree, job.folder, options, command, environment, job.limit)
        seconds = time.monotonic() - start
        record = Record.read(job.folder) or Record(status="failed", error="no record")
        return Ended(record, seconds, _reason(record, seconds, job))


def _stop_if_asked() -> None:
    signals = stopping.SweepSignals.current
    if signals is not None and signals.signals.received is not None:
        raise Interrupted(signals.signals.received)


def _reason(record: Record, seconds: float, job: Job) -> str:
    if record.status == "done":
        return "" if record.score is not None else "it has no score"
    if record.status == "interrupted" and seconds >= job.limit:
        return f"it took longer than {job.limit:.0f} s"
    return record.error or record.status
