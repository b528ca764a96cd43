"""Train and evaluate a config: overrides -> tree -> objects -> run folder.

A run folder is all that a run leaves behind, and all that others read of it: ``config.yaml``,
``result.json``, ``metrics.json``, ``log.txt``, TensorBoard events, checkpoints and ``predictions.png``.
"""

from __future__ import annotations

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
from detectron2.engine import AMPTrainer, SimpleTrainer, create_ddp_model, default_writers, hooks
from detectron2.evaluation import inference_on_dataset, print_csv_format
from detectron2.utils import comm
from detectron2.utils import logger as d2_logger
from detectron2.utils.env import seed_all_rng
from detectron2.utils.logger import setup_logger
from omegaconf import DictConfig
from torch import nn

from . import __version__, config
from .build import build_model, build_optimizer, instantiate
from .checkpoint import AtomicCheckpointer
from .errors import ConfigError
from .hooks import RecordProgress, Schedule, StopBelowMedian, Stopped
from .launch import set_threads
from .predictions import draw_predictions
from .record import Record, move_aside, recorded
from .speed import Speed

__all__ = ["evaluate", "run", "train"]

logger = logging.getLogger(__name__)

Metrics = Mapping[str, Mapping[str, float | None]]


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
    earlier = Record.read(folder) if resume else None
    if earlier:
        record.train_seconds, record.iterations = earlier.train_seconds, earlier.iterations
        record.metrics, record.scores = earlier.metrics, earlier.scores
        record.peak_memory_bytes = earlier.peak_memory_bytes
    record.pid, record.host = os.getpid(), socket.gethostname()
    with recorded(record, folder) if comm.is_main_process() else nullcontext():
        _train(cfg, folder, resume, record)


def _train(cfg: DictConfig, folder: Path, resume: bool, record: Record) -> None:
    main = comm.is_main_process()
    model = build_model(cfg, weights=not resume)
    _describe(record, cfg, model)
    optimizer = build_optimizer(cfg, model)
    loader = instantiate(cfg.dataloader.train)
    parallel = create_ddp_model(model, **_ddp_options(cfg))
    trainer = (AMPTrainer if cfg.train.amp.enabled else SimpleTrainer)(parallel, loader, optimizer)
    checkpointer = AtomicCheckpointer(parallel, str(folder), trainer=trainer)

    def evaluate_now() -> Metrics:
        metrics = _score(record, cfg, model)
        if main:
            record.write(folder)
        return metrics

    period = cfg.train.checkpointer.period
    end = min(cfg.train.get("pause_at") or cfg.train.max_iter, cfg.train.max_iter)
    trainer.register_hooks(
        [
            hooks.IterationTimer(),
            Schedule(instantiate(cfg.lr_multiplier), cfg.train.max_iter),
            RecordProgress(record, folder, period) if main else None,
            hooks.PeriodicCheckpointer(checkpointer, **cfg.train.checkpointer) if main else None,
            hooks.EvalHook(cfg.train.eval_period, evaluate_now),
            StopBelowMedian(record, folder, cfg.train.get("stop_below_median", 0), cfg.train.eval_period),
            hooks.PeriodicWriter(
                default_writers(str(folder), cfg.train.max_iter), period=cfg.train.log_period
            )
            if main
            else None,
        ]
    )
    checkpointer.resume_or_load(cfg.train.init_checkpoint, resume=resume)
    start = trainer.iter + 1 if resume else 0

    if start < end:
        try:
            trainer.train(start, end)
        except Stopped as stopped:
            record.stopped = str(stopped)
            logger.info("This run %s.", stopped)
    else:
        logger.info("All %d iterations are trained already; evaluating.", end)
        record.iterations = start
        evaluate_now()
    if main:
        draw_predictions(cfg, model.eval(), folder / "predictions.png")


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
    AtomicCheckpointer(model, strict=True).load(checkpoint_to_evaluate(cfg))
    record = Record.read(folder) or record
    _describe(record, cfg, model)
    _score(record, cfg, model)
    if comm.is_main_process():
        draw_predictions(cfg, model.eval(), folder / "predictions.png")
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


def _describe(record: Record, cfg: DictConfig, model: nn.Module) -> None:
    record.model_name = cfg.model.backbone.bottom_up.model_name
    record.parameters = sum(parameter.numel() for parameter in model.parameters())
    record.max_iter = cfg.train.max_iter
    record.metric = cfg.train.get("metric") or record.metric


def _ddp_options(cfg: DictConfig) -> dict[str, Any]:
    options: Mapping[str, Any] = cfg.train.ddp
    return {**options, "device_ids": None} if cfg.train.device == "cpu" else dict(options)
