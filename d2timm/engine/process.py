"""One process of a run: prepare its folder, log, seed and threads, then train or evaluate."""

from __future__ import annotations

import logging
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import detectron2
import timm
import torch
from detectron2.utils import comm
from detectron2.utils import logger as d2_logger
from detectron2.utils.env import seed_all_rng
from detectron2.utils.logger import setup_logger
from omegaconf import DictConfig

from .. import __version__
from ..config.lazy import save
from ..runs.aside import move_aside
from ..runs.record import Record, hold
from ..utils.quiet import escape_controls
from ..utils.signals import StopSignals
from .launch import set_threads
from .left_out import has_validation, list_left_out
from .recipes import describe_recipe
from .training import train
from .validation import evaluate_only

__all__ = ["run"]

logger = logging.getLogger(__name__)

#: Names by which torch knows them
BF16_UNITS = ("amx_bf16", "avx512_bf16")


def run(cfg: DictConfig, eval_only: bool = False, resume: bool = False, record: Record | None = None) -> None:
    """Train or evaluate in this process; all processes of a run call it with the same arguments.

    Args:
        cfg: the tree, checked, its dataset resolved.
        eval_only: evaluate ``train.init_checkpoint``, or the last checkpoint of the folder.
        resume: continue from the last checkpoint of the folder, if it has one.
        record: the initial record of the run.

    Raises:
        ConfigError: another process trains in the folder.
        Interrupted: a signal asked the run to stop; a training can be continued.
    """
    folder = Path(cfg.train.output_dir)
    record = record or Record()
    if comm.is_main_process():
        if not (resume or eval_only):
            move_aside(folder)
        folder.mkdir(parents=True, exist_ok=True)
    signals = StopSignals()
    with signals.handled(), hold(folder) if comm.is_main_process() else nullcontext():
        comm.synchronize()  # nothing is written before the folder is locked
        _run(cfg, eval_only, resume, record, signals)


def _run(cfg: DictConfig, eval_only: bool, resume: bool, record: Record, signals: StopSignals) -> None:
    folder = Path(cfg.train.output_dir)
    set_threads(cfg.train.get("threads"))
    _log_to(folder)
    logger.info(
        "d2timm %s, detectron2 %s, timm %s, torch %s; %s, %d process(es)",
        *(__version__, detectron2.__version__, timm.__version__, torch.__version__),
        torch.cuda.get_device_name() if cfg.train.device != "cpu" else "CPU",
        comm.get_world_size(),
    )
    if comm.is_main_process():
        list_left_out(cfg, folder, record)
        if not eval_only:
            save(cfg, folder / "config.yaml")
        _warn_of_slow_precision(cfg.train)
    if record.recipe:
        logger.info("Recipe %s", "\n  ".join(describe_recipe(record.recipe)))
    comm.synchronize()
    has_validation(cfg)  # all processes read the dataset now, as it is for all of them
    seed_all_rng(None if cfg.train.seed < 0 else cfg.train.seed + comm.get_rank())
    torch.backends.cudnn.benchmark = bool(cfg.train.cudnn_benchmark)
    if eval_only:
        evaluate_only(cfg, folder, record)
    else:
        train(cfg, resume, record, signals)


def _warn_of_slow_precision(train: DictConfig) -> None:
    """Warn of bf16 on a CPU that converts each number back and forth, which takes more time than it saves."""
    known: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    lacks = known.get("architecture") == "x86_64" and not any(known.get(unit) for unit in BF16_UNITS)
    if train.amp.enabled and train.device == "cpu" and lacks:
        logger.warning(
            "This CPU has no instructions for bf16 (%s), so that a step takes 1.3 to 1.5 times as long: use "
            "train.amp.enabled=False",
            " or ".join(BF16_UNITS),
        )


def _log_to(folder: Path) -> None:
    """Log to the terminal and to the log.txt of this run, and no longer to that of an earlier run."""
    setup_logger.cache_clear()
    d2_logger._cached_log_stream.cache_clear()
    for name in ("detectron2", "fvcore", "d2timm"):
        for handler in logging.getLogger(name).handlers:
            stream: Any = getattr(handler, "stream", None)
            # streams that other code opened stay open
            if Path(str(getattr(stream, "name", ""))).name.startswith("log.txt"):
                stream.close()
        logging.getLogger(name).handlers.clear()
        setup_logger(str(folder), distributed_rank=comm.get_rank(), name=name)
        for handler in logging.getLogger(name).handlers:
            handler.addFilter(escape_controls)
            handler.handleError = _ignore  # type: ignore[method-assign]  # by default, a traceback for each line


def _ignore(record: logging.LogRecord) -> None:
    """Leave out a line that cannot be written, as on a full disk."""
