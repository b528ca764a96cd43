"""Train a config: tree -> objects -> training loop -> run folder.

A run writes to its folder only, and other parts of d2timm read a run from there only: ``config.yaml``,
``result.json``, ``metrics.json``, ``log.txt``, TensorBoard events, checkpoints and ``predictions.png``.
"""

from __future__ import annotations

import copy
import logging
import os
import socket
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path

from detectron2.engine import HookBase, hooks
from detectron2.utils import comm
from omegaconf import DictConfig
from torch import nn

from ..config.build import build_model, instantiate
from ..config.lazy import save
from ..config.train_options import last_iteration
from ..errors import ConfigError
from ..runs.checkpoint import LAST, AtomicCheckpointer, find_checkpoint, is_averaged
from ..runs.checkpoint_file import AVERAGE
from ..runs.record import Record, recorded
from ..utils.signals import StopSignals
from ..utils.text import one_line
from .agreement import share_buffers
from .budget import iterations_of
from .checkpoints import SaveCheckpoints
from .cool_down import CoolDown
from .event_log import EventLog
from .hooks import (
    AverageWeights,
    Evaluate,
    RecordProgress,
    Schedule,
    StopBelowMedian,
    StopEarly,
    Stopped,
)
from .left_out import add_bad_samples
from .losses import NotFiniteError, on_nan
from .optim import build_optimizer
from .out_of_memory import out_of_memory_explained
from .parallel import distribute
from .schedules import counts_epochs, images_per_step, in_iterations, start_of
from .trainer import build_trainer
from .tuning import choose_ways
from .validation import Metrics, describe_model, finish, measure, metric_of, store
from .warm_heads import FitNewWeights, load_heads
from .writers import build_writers

__all__ = ["train"]

logger = logging.getLogger(__name__)

BEST = "model_best"  # name of the checkpoint with the best score
WARM_UP = 3  # iterations at the start of a run whose time is not logged


def train(cfg: DictConfig, resume: bool, record: Record, signals: StopSignals) -> None:
    """Train, evaluate and write the run folder.

    Args:
        cfg: the tree, checked, its dataset resolved.
        resume: continue from the last checkpoint of the folder, if it has one.
        record: the record of the run, which the first process updates.
        signals: those that ask the run to stop.

    Raises:
        Interrupted: a signal asked the run to stop; it can be continued.
    """
    folder = Path(cfg.train.output_dir)
    resume = resume and (folder / LAST).is_file()
    record.compare_by(metric_of(cfg))
    if resume and (earlier := _earlier(folder)):
        earlier.compare_by(record.metric)
        record.continue_from(earlier)
        if cfg.train.get("budget_hours"):
            record.max_iter = earlier.max_iter  # as measured at the beginning
    record.pid, record.host = os.getpid(), socket.gethostname()
    with recorded(record, folder) if comm.is_main_process() else nullcontext():
        while True:
            try:
                with out_of_memory_explained(cfg):
                    return _train(cfg, folder, resume, record, signals)
            except NotFiniteError as error:
                if record.times_back >= on_nan(cfg.train).go_back or not (folder / LAST).is_file():
                    raise
                record.times_back += 1
                resume = True
                logger.warning("%s; it goes back to the last checkpoint with a lower learning rate", error)


def _train(cfg: DictConfig, folder: Path, resume: bool, record: Record, signals: StopSignals) -> None:
    main = comm.is_main_process()
    restore_folder = partial(_restore_folder, folder, cfg)
    if counts_epochs(cfg.train):
        cfg = copy.deepcopy(cfg)  # the saved config keeps the user's epochs
        images = len(instantiate(cfg.dataloader.train.dataset))
        in_iterations(cfg.train, images, images_per_step(cfg), start_of(cfg))
    model = build_model(cfg, weights=not resume)
    loader = instantiate(cfg.dataloader.train)
    if cfg.train.get("budget_hours"):
        cfg = copy.deepcopy(cfg)
        cfg.train.max_iter = record.max_iter or iterations_of(cfg, model, loader)
    describe_model(record, cfg, model)
    choose_ways(cfg, model, loader, record)
    if main:
        record.try_write(folder)  # before any checkpoint, so that a run that continues computes as before
    parallel, whole, kind = distribute(cfg.train, model)
    optimizer = build_optimizer(cfg, model, on_nan(cfg.train).lr_factor ** record.times_back)
    trainer = build_trainer(cfg.train, parallel, loader, optimizer, kind)
    average = _average(cfg.train, model)
    evaluated = average.averaged if average else whole
    checkpointer = AtomicCheckpointer(whole, str(folder), trainer=trainer)
    if average:
        checkpointer.add_checkpointable(AVERAGE, average.averaged)
    start = 0

    def evaluate_now() -> Metrics:
        if trainer.iter + 1 == start and (recorded := _recorded_metrics(record, start)) is not None:
            return recorded
        add_bad_samples(record, folder, "train", loader)
        with trainer.whole_weights():
            share_buffers(evaluated)  # as in the checkpoint
            with signals.released():  # the weights are saved
                metrics, speed = measure(record, cfg, evaluated)
        with signals.held():
            store(record, metrics, speed)
            if main:
                _save_best(record, checkpointer)
                record.try_write(folder)
        return metrics

    end = last_iteration(cfg.train.get("pause_at"), cfg.train.max_iter)
    pauses = end < cfg.train.max_iter
    cool_down = CoolDown(round(end * cfg.train.get("cool_down", 0)) if pauses else 0, average)
    closing = [cool_down, *_closing_hooks(cfg, folder, record, evaluate_now)]
    first = hooks.IterationTimer(warmup_iter=0 if resume else WARM_UP)
    step_hooks = _step_hooks(cfg, folder, record, checkpointer, average, signals, restore_folder)
    trainer.register_hooks([first, *step_hooks])
    trainer.register_hooks(closing)
    if resume:
        checkpointer.load(str(find_checkpoint(folder)))
        start, trainer.unfinished = trainer.iter + 1, closing
        record.iterations = start
    else:
        checkpointer.load(cfg.train.init_checkpoint, checkpointables=[])
        if cfg.train.get("init_heads"):
            record.heads = load_heads(cfg.train.init_heads, whole)
            if main:
                record.try_write(folder)
    trainer.scatter()
    if record.heads and cfg.train.get("fit_laterals"):
        trainer.register_hooks([FitNewWeights(model, record.heads["new"], cfg.train.fit_laterals)])
    if start >= end:
        logger.info("All %d iterations are already trained; evaluating.", end)
    try:
        trainer.train(start, end)
    except Stopped as stopped:
        record.stopped = str(stopped)
        logger.info("This run %s.", stopped)
    if main and record.best_score is not None:
        best = (record.metric, record.best_score, record.best_iterations)
        logger.info("Best %s: %.2f after %d iterations, in %s.pth", *best, folder / BEST)
    with trainer.whole_weights():
        finish(record, cfg, evaluated.eval())


def _earlier(folder: Path) -> Record | None:
    """The record of the part of a run before a resume; the checkpoint has its scores as well."""
    try:
        return Record.read(folder)
    except ConfigError as error:
        logger.warning("%s; the run continues without it", error)
        return None


def _restore_folder(folder: Path, cfg: DictConfig) -> None:
    """Create the folder of a run anew, with the config that the user gave."""
    folder.mkdir(parents=True)
    save(cfg, folder / "config.yaml")


def _save_best(record: Record, checkpointer: AtomicCheckpointer) -> None:
    """Save the weights if they have the best score so far."""
    earlier = record.best_score, record.best_iterations
    if not record.note_best():
        return
    try:
        checkpointer.save_weights(BEST, iteration=record.iterations - 1)
    except OSError as error:
        record.best_score, record.best_iterations = earlier
        logger.warning("%s; the best weights remain the earlier ones", one_line(error))


def _recorded_metrics(record: Record, iterations: int) -> Metrics | None:
    """The metrics of an evaluation that a run has completed after its last checkpoint; None if it has not."""
    done = bool(record.scores) and record.scores[-1][0] == iterations
    metrics: Metrics | None = comm.all_gather(record.metrics if done else None)[0]
    return metrics


def _step_hooks(
    cfg: DictConfig,
    folder: Path,
    record: Record,
    checkpointer: AtomicCheckpointer,
    average: AverageWeights | None,
    signals: StopSignals,
    restore_folder: Callable[[], None],
) -> list[HookBase]:
    """Hooks that belong to a step, in the order in which they run after it; the last one saves its result."""
    train = cfg.train
    progress = [RecordProgress(record, folder, train.checkpointer.period)] if comm.is_main_process() else []
    return [
        Schedule(instantiate(cfg.lr_multiplier), train.max_iter),
        *([average] if average else []),
        *progress,
        SaveCheckpoints(
            checkpointer,
            signals,
            record,
            restore_folder=restore_folder,
            eval_period=train.eval_period,
            **train.checkpointer,
        ),
    ]


def _closing_hooks(
    cfg: DictConfig, folder: Path, record: Record, evaluate_now: Callable[[], Metrics]
) -> list[HookBase]:
    """Hooks that run after a step is saved, and again if a run continues from there."""
    train = cfg.train
    log = EventLog(folder, train.max_iter, train.log_period, partial(build_writers, cfg, folder))
    return [
        Evaluate(train.eval_period, evaluate_now),
        StopEarly(record, train.get("early_stop", 0), train.eval_period),
        StopBelowMedian(record, folder, train.get("stop_below_median", 0), train.eval_period),
        *([log] if comm.is_main_process() else []),
    ]


def _average(train: DictConfig, model: nn.Module) -> AverageWeights | None:
    if not is_averaged(train):
        return None
    logger.info("Evaluations use averaged weights, with a decay of %g per step.", train.ema.decay)
    return AverageWeights(model, train.ema.decay, train.ema.warmup)
