"""Evaluate a detector on the validation set, and store the metrics in the record of the run."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

from detectron2.evaluation import print_csv_format
from detectron2.utils import comm
from omegaconf import DictConfig, OmegaConf
from torch import nn

from ..config.build import build_model, instantiate, use_ways
from ..data.catalog import get_dataset, tasks_of
from ..data.tasks import main_metric
from ..errors import ConfigError
from ..evaluation.loop import detect_and_evaluate
from ..inference.tta import tta_of, with_tta_results
from ..runs.checkpoint import LAST, last_checkpoint, load_weights
from ..runs.record import Record
from .left_out import add_bad_samples, has_validation
from .predictions import draw_predictions
from .tuning import given_ways

__all__ = [
    "Metrics",
    "checkpoint_to_evaluate",
    "describe_model",
    "evaluate",
    "evaluate_only",
    "finish",
    "measure",
    "metric_of",
    "store",
]

#: Task (``bbox``, ``segm``, ...) -> metric -> percent
Metrics: TypeAlias = Mapping[str, Mapping[str, float | None]]


def evaluate(cfg: DictConfig, model: nn.Module, record: Record) -> tuple[Metrics, float | None]:
    """Evaluate a detector on the validation set, and log the metrics.

    Args:
        cfg: the tree; ``dataloader.test`` and ``dataloader.evaluator`` are used.
        model: the detector.
        record: the record of the run, which receives notes and images that cannot be read.

    Returns:
        Task (``bbox``, ``segm``, ...) -> metric -> percent, empty in all but the first process; and the
        images per second of the detector alone.
    """
    loader, evaluators = instantiate(cfg.dataloader.test), instantiate(cfg.dataloader.evaluator)
    metrics, images_per_second = detect_and_evaluate(model, loader, evaluators)
    add_bad_samples(record, Path(cfg.train.output_dir), "val", loader)
    if comm.is_main_process():
        notes = [getattr(e, "notes", []) for e in evaluators] if isinstance(evaluators, list) else []
        record.notes = list(dict.fromkeys(itertools.chain([*record.notes], *notes)))
        print_csv_format(metrics)
    return metrics, images_per_second


def checkpoint_to_evaluate(train: DictConfig) -> str:
    """Return the checkpoint that ``--eval-only`` loads.

    Args:
        train: the node ``train``.

    Raises:
        ConfigError: there is no checkpoint.
    """
    folder = Path(train.output_dir)
    file: str = train.init_checkpoint
    if not file and not (folder / LAST).is_file():
        raise ConfigError(
            f"--eval-only: {folder} has no checkpoint; set train.output_dir= or train.init_checkpoint="
        )
    if not file:
        return str(last_checkpoint(folder))
    if "://" not in file and not Path(file).is_file():
        raise ConfigError(f"--eval-only: {file}: no such file")
    return file


def evaluate_only(cfg: DictConfig, folder: Path, record: Record) -> None:
    """Evaluate the checkpoint of a run without training it.

    Args:
        cfg: the tree, checked, its dataset resolved.
        folder: the folder of the run.
        record: the record of the run if the folder has none.
    """
    model = build_model(cfg, weights=False)
    load_weights(cfg.train, model, checkpoint_to_evaluate(cfg.train))
    use_ways(cfg, model, "test", **given_ways(cfg.train))
    record = Record.read(folder) or record
    record.compare_by(metric_of(cfg))
    describe_model(record, cfg, model)
    store(record, *measure(record, cfg, model))
    finish(record, cfg, model.eval())
    if comm.is_main_process():
        record.status = "done"
        record.write(folder)


def measure(record: Record, cfg: DictConfig, model: nn.Module) -> tuple[Metrics, float | None]:
    """Evaluate a detector, and return its metrics and its speed in images per second.

    Without a validation set, there is nothing to evaluate, and no metric.
    """
    return evaluate(cfg, model, record) if has_validation(cfg) else ({}, None)


def store(record: Record, metrics: Metrics, images_per_second: float | None) -> None:
    """Store the result of ``measure`` and the peak memory in a record, in the first process."""
    if metrics and comm.is_main_process():
        record.images_per_second = images_per_second
        record.set_metrics(metrics)
        record.measure_memory()


def finish(record: Record, cfg: DictConfig, model: nn.Module) -> None:
    """Complete a run: evaluate with test-time augmentation if configured, and draw predictions.

    Without a validation set, predictions on training images are drawn.
    """
    validated = has_validation(cfg)
    if not validated:
        cfg = copy.deepcopy(cfg)
        cfg.dataloader.test.dataset.split = cfg.dataloader.evaluator.split = "train"
    if validated and OmegaConf.select(cfg, "train.tta.enabled"):
        cfg = copy.deepcopy(cfg)
        cfg.dataloader.evaluator.output_dir = str(Path(cfg.train.output_dir) / "inference_TTA")
        augmented, _ = evaluate(cfg, tta_of(cfg.train.tta, cfg.dataloader.test.mapper, model), record)
        if comm.is_main_process():
            record.set_metrics(with_tta_results(record.metrics, augmented))
    if comm.is_main_process():
        folder = Path(cfg.train.output_dir)
        draw_predictions(cfg.dataloader, model, folder / "predictions.png", samples=folder)


def describe_model(record: Record, cfg: DictConfig, model: nn.Module) -> None:
    """Store in a record which model is trained, for which classes and for how long."""
    record.model_name = cfg.model.backbone.bottom_up.model_name
    record.parameters = sum(parameter.numel() for parameter in model.parameters())
    if "data" in cfg:
        record.labels = get_dataset(cfg.data).labels(tasks_of(cfg.data))
    record.max_iter = record.max_iter or cfg.train.max_iter or 0


def metric_of(cfg: DictConfig) -> str:
    """Return the metric that runs are compared by; configs of earlier versions have no tasks."""
    if metric := cfg.train.get("metric"):
        return str(metric)
    tasks = OmegaConf.select(cfg, "data.tasks")
    return main_metric(instantiate(tasks)) if tasks is not None else Record.metric
