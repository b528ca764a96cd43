"""Train and evaluate a config: overrides -> tree -> objects -> run folder.

A run folder is all that a run leaves behind, and all that others read of it: ``config.yaml``,
``result.json``, ``metrics.json``, ``log.txt``, TensorBoard events, checkpoints and ``predictions.png``.
"""

from __future__ import annotations

import logging
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
from .launch import share_cores
from .predictions import draw_predictions
from .record import FILE, Record, RecordProgress, recorded

__all__ = ["evaluate", "run", "train"]

logger = logging.getLogger(__name__)

Metrics = Mapping[str, Mapping[str, float | None]]


def run(cfg: DictConfig, eval_only: bool = False, resume: bool = False) -> None:
    """One process of a run; all processes call it with the same arguments.

    Args:
        cfg: the tree, settled and checked.
        eval_only: evaluate ``train.init_checkpoint``, or the last checkpoint of the folder.
        resume: go on from the last checkpoint of the folder, if it has one.
    """
    folder = Path(cfg.train.output_dir)
    if comm.is_main_process():
        if not (resume or eval_only):
            _move_aside(folder)
        folder.mkdir(parents=True, exist_ok=True)
    comm.synchronize()
    share_cores()
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
        _evaluate_only(cfg, folder)
    else:
        train(cfg, resume)


def train(cfg: DictConfig, resume: bool = False) -> Metrics:
    """Train, evaluate and leave a run folder.

    Args:
        cfg: the tree, settled and checked.
        resume: go on from the last checkpoint of the folder, if it has one.

    Returns:
        The closing evaluation: task -> metric -> percent. Empty in all but the first process.
    """
    folder = Path(cfg.train.output_dir)
    resume = resume and (folder / "last_checkpoint").is_file()
    main = comm.is_main_process()
    record = Record(model_name=cfg.model.backbone.bottom_up.model_name)
    earlier = Record.read(folder) if resume else None
    if earlier:
        record.train_seconds, record.iterations = earlier.train_seconds, earlier.iterations
    with recorded(record, folder) if main else nullcontext():
        _train(cfg, folder, resume, record)
    return record.metrics


def _train(cfg: DictConfig, folder: Path, resume: bool, record: Record) -> None:
    main = comm.is_main_process()
    model = build_model(cfg, weights=not resume)
    record.parameters = sum(parameter.numel() for parameter in model.parameters())
    optimizer = build_optimizer(cfg, model)
    loader = instantiate(cfg.dataloader.train)
    parallel = create_ddp_model(model, **_ddp_options(cfg))
    trainer = (AMPTrainer if cfg.train.amp.enabled else SimpleTrainer)(parallel, loader, optimizer)
    checkpointer = AtomicCheckpointer(parallel, str(folder), trainer=trainer)

    def evaluate_now() -> Metrics:
        metrics = evaluate(cfg, model)
        record.set_metrics(metrics)
        return metrics

    period = cfg.train.checkpointer.period
    trainer.register_hooks(
        [
            hooks.IterationTimer(),
            hooks.LRScheduler(scheduler=instantiate(cfg.lr_multiplier)),
            RecordProgress(record, folder, period) if main else None,
            hooks.PeriodicCheckpointer(checkpointer, **cfg.train.checkpointer) if main else None,
            hooks.EvalHook(cfg.train.eval_period, evaluate_now),
            hooks.PeriodicWriter(
                default_writers(str(folder), cfg.train.max_iter), period=cfg.train.log_period
            )
            if main
            else None,
        ]
    )
    checkpointer.resume_or_load(cfg.train.init_checkpoint, resume=resume)
    start = trainer.iter + 1 if resume else 0

    if start < cfg.train.max_iter:
        trainer.train(start, cfg.train.max_iter)
    else:
        logger.info("All %d iterations are trained already; evaluating.", cfg.train.max_iter)
        evaluate_now()
    if main:
        draw_predictions(cfg, model.eval(), folder / "predictions.png")


def _log_to(folder: Path) -> None:
    """Log to the terminal and to log.txt of this run only, whatever ran in this process before."""
    setup_logger.cache_clear()
    d2_logger._cached_log_stream.cache_clear()
    for name in ("detectron2", "fvcore", "d2timm"):
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


def _evaluate_only(cfg: DictConfig, folder: Path) -> None:
    model = build_model(cfg, weights=False)
    AtomicCheckpointer(model, strict=True).load(checkpoint_to_evaluate(cfg))
    metrics = evaluate(cfg, model)
    if comm.is_main_process():
        draw_predictions(cfg, model.eval(), folder / "predictions.png")
        record = Record.read(folder) or _new_record(cfg, model)
        record.set_metrics(metrics)
        record.status = "done"
        record.write(folder)


def _new_record(cfg: DictConfig, model: nn.Module) -> Record:
    return Record(
        model_name=cfg.model.backbone.bottom_up.model_name,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
    )


def _ddp_options(cfg: DictConfig) -> dict[str, Any]:
    options: Mapping[str, Any] = cfg.train.ddp
    return {**options, "device_ids": None} if cfg.train.device == "cpu" else dict(options)


def _move_aside(folder: Path) -> None:
    """Keep an earlier run in the folder under the first free name with a number."""
    if not (folder / FILE).is_file():
        return
    number = 1
    while (kept := folder.with_name(f"{folder.name}.{number}")).exists():
        number += 1
    folder.rename(kept)
    print(f"{folder} held an earlier run, which is now {kept} (--resume would have gone on with it)")
