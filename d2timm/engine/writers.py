"""Services that follow a run, beside the console, ``metrics.json`` and TensorBoard.

Each is a detectron2 ``EventWriter`` that sends what TensorBoard gets: losses, learning rate and evaluations,
and once the config. Where a service is and who one is to it, its own environment variables say.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import re
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from detectron2.utils.events import EventWriter, get_event_storage
from omegaconf import DictConfig, OmegaConf

from ..config.lazy import to_plain
from ..errors import ConfigError
from ..utils.checks import suggest
from ..utils.trees import flatten

__all__ = ["MlflowWriter", "WandbWriter", "build_writers", "check_writers", "settings"]

logger = logging.getLogger(__name__)

PROJECT = "d2timm"


class ServiceWriter(EventWriter):
    """Sends each scalar once.

    The service's id of a run is kept in the run folder, so that a resumed run goes on as the same one.

    Args:
        folder: of the run; its name is the run's.
        config: all values of the tree by their paths, as ``settings`` gives them.
        window: iterations over whose median noisy scalars are smoothed, as detectron2's writers do.
    """

    id_file: str

    def __init__(self, folder: Path, config: Mapping[str, Any], window: int = 20) -> None:
        self.window = window
        self.sent = -1  # the latest iteration
        file = folder / self.id_file
        known = file.read_text() if file.is_file() else None
        file.write_text(self.open(folder, config, known))

    def write(self) -> None:
        """Send what is new."""
        new: dict[int, dict[str, float]] = defaultdict(dict)
        for name, (value, at) in get_event_storage().latest_with_smoothing_hint(self.window).items():
            if at > self.sent:
                new[at][name] = value
        for at in sorted(new):
            self.send(new[at], at)
            self.sent = at

    def open(self, folder: Path, config: Mapping[str, Any], known: str | None) -> str:
        """Begin a run, or go on with a known one; returns its id."""
        raise NotImplementedError

    def send(self, scalars: Mapping[str, float], iteration: int) -> None:
        """Hand over the scalars of an iteration."""
        raise NotImplementedError


class WandbWriter(ServiceWriter):
    """Weights & Biases; the project is ``$WANDB_PROJECT`` or ``d2timm``."""

    id_file = ".wandb_id"

    def open(self, folder: Path, config: Mapping[str, Any], known: str | None) -> str:
        """Begin a run, or go on with a known one; returns its id."""
        import wandb

        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=folder.resolve().name,
            dir=folder,
            config=dict(config),
            id=known,
            resume="allow",
            reinit="create_new",  # a sweep has one run after another in a process
        )
        # Not wandb's own steps: those may not go back, as after a kill they do
        self.run.define_metric("*", step_metric="iteration")
        return str(self.run.id)

    def send(self, scalars: Mapping[str, float], iteration: int) -> None:
        """Hand over the scalars of an iteration."""
        self.run.log({**scalars, "iteration": iteration})

    def close(self) -> None:
        """Say that the run has ended, and how."""
        self.run.finish(exit_code=int(_failed()))


class MlflowWriter(ServiceWriter):
    """MLflow; the experiment is ``$MLFLOW_EXPERIMENT_NAME`` or ``d2timm``.

    A server that does not answer for a while costs the scalars of that time, which is logged, not the run.
    """

    id_file = ".mlflow_id"

    def open(self, folder: Path, config: Mapping[str, Any], known: str | None) -> str:
        """Begin a run, or go on with a known one; returns its id."""
        from mlflow import MlflowClient
        from mlflow.entities import Param

        self.client = MlflowClient()
        if known:
            self.client.update_run(known, status="RUNNING")
            self.id = known
            return known
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        experiment = self.client.get_experiment_by_name(name)
        place = experiment.experiment_id if experiment else self.client.create_experiment(name)
        self.id = self.client.create_run(place, run_name=folder.resolve().name).info.run_id
        params = [Param(_name(key), str(value)[:6000]) for key, value in config.items()]
        for first in range(0, len(params), 100):  # MLflow's limits: 100 at once, 6000 characters
            self.client.log_batch(self.id, params=params[first : first + 100])
        return str(self.id)

    def send(self, scalars: Mapping[str, float], iteration: int) -> None:
        """Hand over the scalars of an iteration."""
        from mlflow.entities import Metric
        from mlflow.exceptions import MlflowException

        now = int(time.time() * 1000)
        metrics = [Metric(_name(key), value, now, iteration) for key, value in scalars.items()]
        try:
            self.client.log_batch(self.id, metrics=metrics)
        except MlflowException as error:
            logger.warning("MLflow did not take the scalars of iteration %d: %s", iteration, error)

    def close(self) -> None:
        """Say that the run has ended, and how."""
        from mlflow.exceptions import MlflowException

        try:
            self.client.set_terminated(self.id, "FAILED" if _failed() else "FINISHED")
        except MlflowException as error:
            logger.warning("MLflow was not told that the run has ended: %s", error)


#: By their names in ``train.writers``, which are those of the extras and of the packages too.
WRITERS: dict[str, Callable[[Path, Mapping[str, Any]], EventWriter]] = {
    "wandb": WandbWriter,
    "mlflow": MlflowWriter,
}


def check_writers(names: Sequence[str]) -> None:
    """Raise ConfigError unless each name is a writer whose package is installed."""
    if isinstance(names, str):
        raise ConfigError(f"train.writers={names}: a list, such as [{names}]")
    for name in names:
        if name not in WRITERS:
            known = ", ".join(WRITERS)
            raise ConfigError(f"train.writers={names}: {name!r}: {suggest(name, WRITERS)}; there are {known}")
        found = importlib.util.find_spec(name)
        if not (found and found.origin):  # a folder of that name, as wandb makes, is no package
            raise ConfigError(f"train.writers={names} needs: pip install 'd2timm[{name}]'")


def build_writers(cfg: DictConfig, folder: Path) -> list[EventWriter]:
    """Make the writers that ``train.writers`` names."""
    names = cfg.train.get("writers") or []
    return [WRITERS[name](folder, settings(cfg)) for name in names]


def settings(cfg: DictConfig) -> dict[str, Any]:
    """Dotted key -> value of all values of a tree; an interpolation of a whole node stays as it is written."""
    return {key: _resolved(cfg, key, written) for key, written in flatten(to_plain(cfg)).items()}


def _resolved(cfg: DictConfig, key: str, written: Any) -> Any:
    if not (isinstance(written, str) and "${" in written):
        return written
    value = OmegaConf.select(cfg, key)
    return written if OmegaConf.is_config(value) else value


def _name(key: str) -> str:
    """A key in the characters that MLflow allows; names of classes may have others."""
    return re.sub(r"[^\w\-. /]", "_", key)


def _failed() -> bool:
    """Whether an error is on its way out, as when writers are closed after a failed training.

    An interruption is none: like a run that is stopped early it has not failed.
    """
    return isinstance(sys.exc_info()[1], Exception)
