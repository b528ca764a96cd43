"""``train.budget_hours``: the length of a training as time on this machine."""

from __future__ import annotations

import copy
import itertools
import logging
import statistics
import time
from typing import Any

from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from omegaconf import DictConfig

from ..data.loader import TrainLoader
from ..errors import ConfigError
from ..utils.seeds import seeded
from .optim import build_optimizer
from .trainer import build_trainer

__all__ = ["iterations_of"]

logger = logging.getLogger(__name__)

WARM_UP, STEPS = 2, 8  # steps that are not counted, and that are
SHARE = 0.03  # of the budget, which the counted steps take at most


def iterations_of(cfg: DictConfig, model: Any, loader: Any) -> int:
    """The number of iterations that take ``train.budget_hours``, from the time of the first ones.

    A copy of the detector is trained for some steps; the detector and the position of the loader stay as they
    are. Evaluations are not counted.

    Args:
        cfg: the tree.
        model: the detector, on its device.
        loader: the batches of the training.

    Raises:
        ConfigError: the loader is not a ``TrainLoader``, so that it may not give a batch again.
    """
    if not isinstance(loader, TrainLoader):
        raise ConfigError("train.budget_hours needs d2timm's loader: use train.max_iter with another")
    budget = 3600 * cfg.train.budget_hours
    trial = copy.deepcopy(model).train()
    batches = _Batches(loader)
    trainer = build_trainer(cfg.train, trial, batches, build_optimizer(cfg, trial))
    steps: list[float] = []
    with seeded(0), EventStorage() as trainer.storage:
        for trainer.iter in range(WARM_UP + STEPS):
            start = time.perf_counter()
            trainer.run_step()
            trainer.read_losses()  # waits for the device
            steps.append(time.perf_counter() - start)
            done = trainer.iter >= WARM_UP and sum(steps) > SHARE * budget
            if max(comm.all_gather(done)):  # all processes end together
                break
    counted, reading = steps[WARM_UP:] or steps, batches.seconds[WARM_UP:] or batches.seconds
    step, read = statistics.fmean(counted), statistics.fmean(reading)
    workers = loader.num_workers
    seconds = step if not workers else max(step - read, read / workers)  # they read beside the training
    seconds = statistics.fmean(comm.all_gather(seconds))
    iterations = max(1, int(budget / seconds))
    logger.info("train.budget_hours=%g: %d iterations of %.3f s", cfg.train.budget_hours, iterations, seconds)
    return iterations


class _Batches:
    """The first batches of a loader, whose position stays as it is.

    Attributes:
        seconds: that each batch has taken.
    """

    def __init__(self, loader: Any) -> None:
        self.loader, self.seconds = loader, list[float]()

    def __iter__(self) -> Any:
        for number in itertools.count():
            start = time.perf_counter()
            batch = self.loader.batch(number)
            self.seconds.append(time.perf_counter() - start)
            yield batch
