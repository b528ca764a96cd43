"""Writers that send a run to experiment trackers, in addition to the log, ``metrics.json`` and TensorBoard.

Each is a detectron2 ``EventWriter`` that sends the config once, and the scalars that TensorBoard gets:
losses, learning rate and metrics. Address and credentials come from the environment variables of the tracker.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import re
import sys
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from detectron2.utils.events import EventWriter, get_event_storage
from omegaconf import DictConfig, OmegaConf

from ..config.lazy import target_name, to_plain
from ..errors import ConfigError
from ..utils.checks import suggest
from ..utils.trees import flatten

__all__ = ["MlflowWriter", "WandbWriter", "build_writers", "check_writers", "settings"]

logger = logging.getLogger(__name__)

PROJECT = "d2timm"


class ServiceWriter(EventWriter):
    """Base class of writers for a service; sends each scalar once.

    The service's id of the run is stored in the run folder, so that a resumed run continues the same one.

    Attributes:
        package: the package that must be installed.
        extra: the extra of d2timm that installs it.
        id_file: file of the run folder with the service's id of the run.

    Args:
        folder: the run folder; the run gets its name.
        config: dotted key -> value of the config, as ``settings`` returns it.
        window: iterations over which noisy scalars are smoothed by their median, as in detectron2's writers.
        sent: the latest iteration whose scalars were sent before.
    """

    package: ClassVar[str]
    extra: ClassVar[str]
    id_file: ClassVar[str]

    def __init__(self, folder: Path, config: Mapping[str, Any], window: int = 20, sent: int = -1) -> None:
        self.window = window
        self.sent = sent
        file = folder / self.id_file
        run_id = file.read_text() if file.is_file() else None
        file.write_text(self.open(folder, config, run_id))

    def write(self) -> None:
        """Send the scalars that were not sent before."""
        new: dict[int, dict[str, float]] = defaultdict(dict)
        for name, (value, at) in get_event_storage().latest_with_smoothing_hint(self.window).items():
            if at > self.sent:
                new[at][name] = value
        for at in sorted(new):
            self.send(new[at], at)
            self.sent = at

    def open(self, folder: Path, config: Mapping[str, Any], run_id: str | None) -> str:
        """Start a run, or continue the one with this id; returns the id."""
        raise NotImplementedError

    def send(self, scalars: Mapping[str, float], iteration: int) -> None:
        """Send the scalars of an iteration."""
        raise NotImplementedError


class WandbWriter(ServiceWriter):
    """Weights & Biases; the project is ``$WANDB_PROJECT`` or ``d2timm``."""

    package = "wandb"
    extra = "wandb"
    id_file = ".wandb_id"

    def open(self, folder: Path, config: Mapping[str, Any], run_id: str | None) -> str:
        """Start a run, or continue the one with this id; returns the id."""
        import wandb

        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=folder.resolve().name,
            dir=folder,
            config=dict(config),
            id=run_id,
            resume="allow",
            reinit="create_new",  # a sweep may train several runs in one process
        )
        # wandb's own step must not decrease, but it does in a run that continues after a kill
        self.run.define_metric("*", step_metric="iteration")
        return str(self.run.id)

    def send(self, scalars: Mapping[str, float], iteration: int) -> None:
        """Send the scalars of an iteration."""
        self.run.log({**scalars, "iteration": iteration})

    def close(self) -> None:
        """End the run, as failed or as finished."""
        self.run.finish(exit_code=int(_failed()))


class MlflowWriter(ServiceWriter):
    """MLflow; the experiment is ``$MLFLOW_EXPERIMENT_NAME`` or ``d2timm``.

    While the server does not answer, scalars are lost with a warning, but the run continues.
    """

    package = "mlflow"
    extra = "mlflow"
    id_file = ".mlflow_id"

    def open(self, folder: Path, config: Mapping[str, Any], run_id: str | None) -> str:
        """Start a run, or continue the one with this id; returns the id."""
        from mlflow import MlflowClient
        from mlflow.entities import Param

        self.client = MlflowClient()
        if run_id:
            self.client.update_run(run_id, status="RUNNING")
            self.id = run_id
            return run_id
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        experiment = self.client.get_experiment_by_name(name)
        experiment_id = experiment.experiment_id if experiment else self.client.create_experiment(name)
        self.id = self.client.create_run(experiment_id, run_name=folder.resolve().name).info.run_id
        # MLflow accepts at most 6000 characters per value and 100 parameters per call
        params = [Param(_name(key), str(value)[:6000]) for key, value in config.items()]
        for first in range(0, len(params), 100):
            self.client.log_batch(self.id, params=params[first : first + 100])
        return str(self.id)

    def send(self, scalars: Mapping[str, float], iteration: int) -> None:
        """Send the scalars of an iteration."""
        from mlflow.entities import Metric
        from mlflow.exceptions import MlflowException

        now = int(time.time() * 1000)
        metrics = [Metric(_name(key), value, now, iteration) for key, value in scalars.items()]
        try:
            self.client.log_batch(self.id, metrics=metrics)
        except MlflowException as error:
            logger.warning("MLflow did not receive the scalars of iteration %d: %s", iteration, error)

    def close(self) -> None:
        """End the run, as failed or as finished."""
        from mlflow.exceptions import MlflowException

        try:
            self.client.set_terminated(self.id, "FAILED" if _failed() else "FINISHED")
        except MlflowException as error:
            logger.warning("MLflow did not receive the end of the run: %s", error)


#: Name in ``train.writers`` -> writer
WRITERS: dict[str, type[ServiceWriter]] = {"wandb": WandbWriter, "mlflow": MlflowWriter}


def check_writers(names: Sequence[str]) -> None:
    """Raise ConfigError unless each name is a writer whose package is installed."""
    if isinstance(names, str):
        raise ConfigError(f"train.writers={names}: a list is needed, such as [{names}]")
    for name in names:
        if name not in WRITERS:
            known = ", ".join(WRITERS)
            raise ConfigError(
                f"train.writers={list(names)}: {name!r} is not a writer ({known}): {suggest(name, WRITERS)}"
            )
        writer = WRITERS[name]
        package = importlib.util.find_spec(writer.package)
        # a folder of this name, which wandb creates, is found as well, but has no origin
        if not (package and package.origin):
            raise ConfigError(f"train.writers={list(names)} needs: pip install 'd2timm[{writer.extra}]'")


def build_writers(cfg: DictConfig, folder: Path, sent: int = -1) -> list[EventWriter]:
    """Create the writers that ``train.writers`` lists; scalars up to an iteration were sent before."""
    names = cfg.train.get("writers") or []
    return [WRITERS[name](folder, settings(cfg), sent=sent) for name in names]


def settings(cfg: DictConfig) -> dict[str, Any]:
    """Return dotted key -> value for all values of a tree; interpolations of nodes stay as text."""
    return {key: _resolved(cfg, key, raw) for key, raw in flatten(to_plain(cfg)).items()}


def _resolved(cfg: DictConfig, key: str, raw: Any) -> Any:
    if not (isinstance(raw, str) and "${" in raw):
        return raw
    value = OmegaConf.select(cfg, key)
    if OmegaConf.is_config(value):
        return raw
    return target_name(value) if callable(value) else value  # a class, by an interpolation of a _target_


def _name(key: str) -> str:
    """Replace characters that MLflow does not allow, which class names may contain."""
    return re.sub(r"[^\w\-. /]", "_", key)


def _failed() -> bool:
    """Whether an error is being raised, as when writers are closed after a failure of the training.

    An interruption is not an error: an interrupted run has not failed.
    """
    return isinstance(sys.exc_info()[1], Exception)
