"""Train and evaluate a config: overrides -> tree -> objects -> run folder.

A run folder is all that a run leaves behind, and all that others read of it: ``config.yaml``,
``result.json``, ``metrics.json``, ``log.txt``, TensorBoard events, checkpoints and ``predictions.png``.
"""

from __future__ import annotations

import copy
import logging
import os
import socket
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import detectron2
import timm
import torch
from detectron2.engine import HookBase, create_ddp_model, default_writers, hooks
from detectron2.evaluation import inference_on_dataset, print_csv_format
from detectron2.utils import comm
from detectron2.utils import logger as d2_logger
from detectron2.utils.env import seed_all_rng
from detectron2.utils.logger import setup_logger
from omegaconf import DictConfig, OmegaConf
from torch import nn

from . import __version__, config
from .build import build_model, build_optimizer, instantiate
from .checkpoint import AVERAGE, AtomicCheckpointer, is_averaged, load_weights
from .data.catalog import data_set, tasks_of
from .data.tasks import main_metric
from .errors import ConfigError
from .hooks import AverageWeights, RecordProgress, Schedule, StopBelowMedian, StopEarly, Stopped
from .launch import set_threads
from .predictions import draw_predictions
from .record import Record, move_aside, recorded
from .schedules import counts_epochs, in_iterations
from .speed import Speed
from .trainer import build_trainer
from .tta import tta_of, with_tta_results
from .writers import build_writers

__all__ = ["evaluate", "run", "train"]

logger = logging.getLogger(__name__)

Metrics = Mapping[str, Mapping[str, float | None]]

BEST = "model_best"


def run(cfg: DictConfig, eval_only: bool = False, resume: bool = False, record: Record | None = None) -> None:
    """One process of a run; all processes call it with the same arguments.

    Args:
        cfg: the tree, settled and checked.
        eval_only: evaluate ``train.init_checkpoint``, or the last checkpoint of the folder.
        resume: go on from the last checkpoint of the folder, if it has one.
        record: what is known of the run before it starts.
    """
    folder = Path(cfg.train.output_dir)
    record = record or Record()
    if comm.is_main_process():
        if not (resume or eval_only):
            move_aside(folder)
        folder.mkdir(parents=True, exist_ok=True)
    comm.synchronize()
    set_threads(cfg.train.get("threads"))
    _log_to(folder)
    logger.info(
        "d2timm %s, detectron2 %s, timm %s, torch %s; %s, %d process(es)",
        *(__version__, detectron2.__version__, timm.__version__, torch.__version__),
        torch.cuda.get_device_name() if cfg.train.device != "cpu" else "CPU",
        comm.get_world_size(),
    )
    if comm.is_main_process() and not eval_only:
        config.save(cfg, folder / "config.yaml")
    seed_all_rng(None if cfg.train.seed < 0 else cfg.train.seed + comm.get_rank())
    torch.backends.cudnn.benchmark = bool(cfg.train.cudnn_benchmark)
    if eval_only:
        _evaluate_only(cfg, folder, record)
    else:
        train(cfg, resume, record)


def train(cfg: DictConfig, resume: bool, record: Record) -> None:
    """Train, evaluate and leave a run folder.

    Args:
        cfg: the tree, settled and checked.
        resume: go on from the last checkpoint of the folder, if it has one.
        record: what is known of the run; in the first process it is kept up to date.
    """
    folder = Path(cfg.train.output_dir)
    resume = resume and (folder / "last_checkpoint").is_file()
    record.compare_by(_metric(cfg))
    if resume and (earlier := Record.read(folder)):
        earlier.compare_by(record.metric)
        record.take_over(earlier)
    record.pid, record.host = os.getpid(), socket.gethostname()
    with recorded(record, folder) if comm.is_main_process() else nullcontext():
        _train(cfg, folder, resume, record)


def _train(cfg: DictConfig, folder: Path, resume: bool, record: Record) -> None:
    main = comm.is_main_process()
    if counts_epochs(cfg):
        cfg = copy.deepcopy(cfg)  # the saved one stays as the user has it
        in_iterations(cfg, len(instantiate(cfg.dataloader.train.dataset)))
    model = build_model(cfg, weights=not resume)
    _describe(record, cfg, model)
    optimizer = build_optimizer(cfg, model)
    loader = instantiate(cfg.dataloader.train)
    parallel = create_ddp_model(model, **_ddp_options(cfg))
    trainer = build_trainer(cfg, parallel, loader, optimizer)
    average = _average(cfg, model)
    evaluated = average.averaged if average else model
    checkpointer = AtomicCheckpointer(parallel, str(folder), trainer=trainer)
    if average:
        checkpointer.add_checkpointable(AVERAGE, average.averaged)

    def evaluate_now() -> Metrics:
        metrics = _score(record, cfg, evaluated)
        if main:
            if record.note_best():
                checkpointer.save_weights(BEST, iteration=record.iterations - 1)
            record.write(folder)
        return metrics

    trainer.register_hooks(
        [
            hooks.IterationTimer(),
            Schedule(instantiate(cfg.lr_multiplier), cfg.train.max_iter),
            average,
            RecordProgress(record, folder, cfg.train.checkpointer.period) if main else None,
            hooks.PeriodicCheckpointer(checkpointer, **cfg.train.checkpointer) if main else None,
            hooks.EvalHook(cfg.train.eval_period, evaluate_now),
            StopEarly(record, cfg.train.get("early_stop", 0), cfg.train.eval_period),
            StopBelowMedian(record, folder, cfg.train.get("stop_below_median", 0), cfg.train.eval_period),
        ]
    )
    checkpointer.resume_or_load(cfg.train.init_checkpoint, resume=resume)
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
        logger.info("All %d iterations are trained already; evaluating.", end)
        record.iterations = start
        evaluate_now()
    if main and record.best_score is not None:
        best = (record.metric, record.best_score, record.best_iterations)
        logger.info("Best %s %.2f, after %d iterations: %s.pth", *best, folder / BEST)
    _finish(record, cfg, evaluated.eval())


def _average(cfg: DictConfig, model: nn.Module) -> AverageWeights | None:
    if not is_averaged(cfg):
        return None
    options = cfg.train.ema
    logger.info("Evaluations are of averaged weights, with a decay of %g a step.", options.decay)
    return AverageWeights(model, options.decay, options.warmup)


def _writers(cfg: DictConfig, folder: Path) -> HookBase:
    writers = [*default_writers(str(folder), cfg.train.max_iter), *build_writers(cfg, folder)]
    return hooks.PeriodicWriter(writers, period=cfg.train.log_period)


def _log_to(folder: Path) -> None:
    """Log to the terminal and to log.txt of this run only, whatever ran in this process before."""
    setup_logger.cache_clear()
    d2_logger._cached_log_stream.cache_clear()
    for name in ("detectron2", "fvcore", "d2timm"):
        for handler in logging.getLogger(name).handlers:
            stream: Any = getattr(handler, "stream", None)
            if Path(str(getattr(stream, "name", ""))).name.startswith("log.txt"):  # no one else's
                stream.close()
        logging.getLogger(name).handlers.clear()
        setup_logger(str(folder), distributed_rank=comm.get_rank(), name=name)


def evaluate(cfg: DictConfig, model: nn.Module) -> Metrics:
    """Evaluate a detector on the validation set.

    Returns:
        Task (``bbox``, ``segm``) -> metric -> percent; empty in all but the first process.
    """
    metrics: Metrics = inference_on_dataset(
        model, instantiate(cfg.dataloader.test), instantiate(cfg.dataloader.evaluator)
    )
    if comm.is_main_process():
        print_csv_format(metrics)
    return metrics


def checkpoint_to_evaluate(cfg: DictConfig) -> str:
    """What ``--eval-only`` loads.

    Raises:
        ConfigError: there is nothing trained to evaluate.
    """
    folder = Path(cfg.train.output_dir)
    last = folder / "last_checkpoint"
    file = cfg.train.init_checkpoint or (last.is_file() and str(folder / last.read_text().strip()))
    if not file:
        raise ConfigError(
            f"--eval-only: {folder} has no checkpoint; give train.output_dir= or train.init_checkpoint="
        )
    if "://" not in file and not Path(file).is_file():
        raise ConfigError(f"--eval-only: {file}: no such file")
    return str(file)


def _evaluate_only(cfg: DictConfig, folder: Path, record: Record) -> None:
    model = build_model(cfg, weights=False)
    load_weights(cfg, model, checkpoint_to_evaluate(cfg))
    record = Record.read(folder) or record
    record.compare_by(_metric(cfg))
    _describe(record, cfg, model)
    _score(record, cfg, model)
    _finish(record, cfg, model.eval())
    if comm.is_main_process():
        record.status = "done"
        record.write(folder)


def _score(record: Record, cfg: DictConfig, model: nn.Module) -> Metrics:
    """Evaluate, and note in the first process what came of it."""
    with Speed(model) as speed:
        metrics = evaluate(cfg, model)
    if comm.is_main_process():
        record.images_per_second = speed.images_per_second
        record.set_metrics(metrics)
        record.measure_memory()
    return metrics


def _finish(record: Record, cfg: DictConfig, model: nn.Module) -> None:
    """What follows the last evaluation: one with test-time augmentation if asked for, and pictures."""
    if OmegaConf.select(cfg, "train.tta.enabled"):
        cfg = copy.deepcopy(cfg)
        cfg.dataloader.evaluator.output_dir = str(Path(cfg.train.output_dir) / "inference_TTA")
        augmented = evaluate(cfg, tta_of(cfg, model))
        if comm.is_main_process():
            record.set_metrics(with_tta_results(record.metrics, augmented))
    if comm.is_main_process():
        draw_predictions(cfg, model, Path(cfg.train.output_dir) / "predictions.png")


def _describe(record: Record, cfg: DictConfig, model: nn.Module) -> None:
    record.model_name = cfg.model.backbone.bottom_up.model_name
    record.parameters = sum(parameter.numel() for parameter in model.parameters())
    if "data" in cfg:
        record.labels = data_set(cfg.data).labels(tasks_of(cfg.data))
    record.max_iter = record.max_iter or cfg.train.max_iter or 0


def _metric(cfg: DictConfig) -> str:
    """The metric that runs are compared by; configs saved by earlier versions have no tasks."""
    if metric := cfg.train.get("metric"):
        return str(metric)
    tasks = OmegaConf.select(cfg, "data.tasks")
    return main_metric(instantiate(tasks)) if tasks is not None else Record.metric


def _ddp_options(cfg: DictConfig) -> dict[str, Any]:
    options: Mapping[str, Any] = cfg.train.ddp
    return {**options, "device_ids": None} if cfg.train.device == "cpu" else dict(options)
