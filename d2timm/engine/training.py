"""Train a config: tree -> objects -> training loop -> run folder.

A run writes to its folder only, and other parts of d2timm read a run from there only: ``config.yaml``,
``result.json``, ``metrics.json``, ``log.txt``, TensorBoard events, checkpoints and ``predictions.png``.
"""

from __future__ import annotations

import copy
import logging
import os
import socket
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from detectron2.engine import HookBase, create_ddp_model, default_writers, hooks
from detectron2.utils import comm
from omegaconf import DictConfig
from torch import nn

from ..config.build import build_model, instantiate
from ..runs.checkpoint import AVERAGE, LAST, AtomicCheckpointer, find_checkpoint, is_averaged
from ..runs.record import Record, recorded
from .hooks import AverageWeights, RecordProgress, Schedule, StopBelowMedian, StopEarly, Stopped
from .left_out import add_bad_samples
from .optim import build_optimizer
from .schedules import counts_epochs, images_per_step, in_iterations
from .trainer import build_trainer
from .validation import Metrics, describe_model, finish, metric_of, score
from .writers import build_writers

__all__ = ["train"]

logger = logging.getLogger(__name__)

BEST = "model_best"  # name of the checkpoint with the best score


def train(cfg: DictConfig, resume: bool, record: Record) -> None:
    """Train, evaluate and write the run folder.

    Args:
        cfg: the tree, checked, its dataset resolved.
        resume: continue from the last checkpoint of the folder, if it has one.
        record: the record of the run, which the first process updates.
    """
    folder = Path(cfg.train.output_dir)
    resume = resume and (folder / LAST).is_file()
    record.compare_by(metric_of(cfg))
    if resume and (earlier := Record.read(folder)):
        earlier.compare_by(record.metric)
        record.continue_from(earlier)
    record.pid, record.host = os.getpid(), socket.gethostname()
    with recorded(record, folder) if comm.is_main_process() else nullcontext():
        _train(cfg, folder, resume, record)


def _train(cfg: DictConfig, folder: Path, resume: bool, record: Record) -> None:
    main = comm.is_main_process()
    if counts_epochs(cfg.train):
        cfg = copy.deepcopy(cfg)  # the saved config keeps the user's epochs
        in_iterations(cfg.train, len(instantiate(cfg.dataloader.train.dataset)), images_per_step(cfg))
    model = build_model(cfg, weights=not resume)
    describe_model(record, cfg, model)
    optimizer = build_optimizer(cfg, model)
    loader = instantiate(cfg.dataloader.train)
    parallel = create_ddp_model(model, **_ddp_options(cfg.train))
    trainer = build_trainer(cfg.train, parallel, loader, optimizer)
    average = _average(cfg.train, model)
    evaluated = average.averaged if average else model
    checkpointer = AtomicCheckpointer(parallel, str(folder), trainer=trainer)
    if average:
        checkpointer.add_checkpointable(AVERAGE, average.averaged)

    def evaluate_now() -> Metrics:
        add_bad_samples(record, folder, "train", loader)
        metrics = score(record, cfg, evaluated)
        if main:
            if record.note_best():
                checkpointer.save_weights(BEST, iteration=record.iterations - 1)
            record.write(folder)
        return metrics

    trainer.register_hooks(_hooks(cfg, folder, record, checkpointer, average, evaluate_now))
    if resume:
        checkpointer.load(str(find_checkpoint(folder)))
    else:
        checkpointer.load(cfg.train.init_checkpoint, checkpointables=[])
    start = trainer.iter + 1 if resume else 0
    end = min(cfg.train.get("pause_at") or cfg.train.max_iter, cfg.train.max_iter)
    if start < end:
        trainer.register_hooks([_writers(cfg, folder) if main else None])
        try:
            trainer.train(start, end)
        except Stopped as stopped:
            record.stopped = str(stopped)
            logger.info("This run %s.", stopped)
    else:
        logger.info("All %d iterations are already trained; evaluating.", end)
        record.iterations = start
        evaluate_now()
    if main and record.best_score is not None:
        best = (record.metric, record.best_score, record.best_iterations)
        logger.info("Best %s: %.2f after %d iterations, in %s.pth", *best, folder / BEST)
    finish(record, cfg, evaluated.eval())


def _hooks(
    cfg: DictConfig,
    folder: Path,
    record: Record,
    checkpointer: AtomicCheckpointer,
    average: AverageWeights | None,
    evaluate_now: Callable[[], Metrics],
) -> list[HookBase | None]:
    """Hooks in the order in which they run after a step; None: not in this process."""
    main, train = comm.is_main_process(), cfg.train
    return [
        hooks.IterationTimer(),
        Schedule(instantiate(cfg.lr_multiplier), train.max_iter),
        average,
        RecordProgress(record, folder, train.checkpointer.period) if main else None,
        hooks.PeriodicCheckpointer(checkpointer, **train.checkpointer) if main else None,
        hooks.EvalHook(train.eval_period, evaluate_now),
        StopEarly(record, train.get("early_stop", 0), train.eval_period),
        StopBelowMedian(record, folder, train.get("stop_below_median", 0), train.eval_period),
    ]


def _average(train: DictConfig, model: nn.Module) -> AverageWeights | None:
    if not is_averaged(train):
        return None
    logger.info("Evaluations use averaged weights, with a decay of %g per step.", train.ema.decay)
    return AverageWeights(model, train.ema.decay, train.ema.warmup)


def _writers(cfg: DictConfig, folder: Path) -> HookBase:
    writers = [*default_writers(str(folder), cfg.train.max_iter), *build_writers(cfg, folder)]
    return hooks.PeriodicWriter(writers, period=cfg.train.log_period)


def _ddp_options(train: DictConfig) -> dict[str, Any]:
    options: Mapping[str, Any] = train.ddp
    return {**options, "device_ids": None} if train.device == "cpu" else dict(options)
