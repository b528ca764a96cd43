"""``train.tune``: measure in which way the steps of a run are fastest on this machine.

A run that is long enough takes the images of its first batch, times a copy of the detector in each way that
may be faster, and keeps what is faster and gives the same losses. It spends a small share of the run on this,
once for each machine, detector, image size and version: later runs read the result from the cache. A run that
continues computes as before.
"""

from __future__ import annotations

import copy
import hashlib
import json
import logging
import math
import os
import platform
import statistics
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from omegaconf import DictConfig, OmegaConf

from .. import __version__
from ..config.build import use_ways
from ..config.lazy import to_plain
from ..data.loader import TrainLoader
from ..errors import ConfigError
from ..modeling.ways import Ways, compiler_is_missing
from ..runs.record import Record
from ..utils.files import atomic_write, cache_root
from ..utils.seeds import seeded
from ..utils.text import one_line
from .trainer import PRECISIONS, precision_of

__all__ = ["choose_ways", "given_ways"]

logger = logging.getLogger(__name__)

SHARE = 0.03  # of the time of a run, which measurements take at most
FEWEST = 500  # iterations of a run that gains more by measurements than they take
STEPS = 4  # in each of two ways that are compared; the first ones are not counted
GAIN = 0.95  # a way must take less than this share of the time
SPARE = 2.0  # times the number of workers that read as fast as the detector trains
TOLERANCE = 0.01  # relative difference of the sum of the losses
COMPILE_SECONDS = 240.0  # that a compilation is expected to take


def choose_ways(cfg: DictConfig, model: Any, loader: Any, record: Record) -> None:
    """Choose in which ways the steps of a run are computed, apply them, and note them in the record.

    Args:
        cfg: the tree; ``train.channels_last`` and ``train.compile`` are applied as they are if they are set.
        model: the detector, on its device; in place.
        loader: the batches of the training, a ``TrainLoader``; its position stays as it is, and if
            ``num_workers`` is auto, it has no more workers than are needed.
        record: the record of the run; if it has a result, as that of a run that continues, this is used.

    Raises:
        ConfigError: ``train.tune`` is not valid, or ``train.compile`` needs a compiler that is missing.
    """
    given = given_ways(cfg.train)
    missing = compiler_is_missing(cfg.train.device)
    if given.get("compile") and missing:  # before anything is measured
        raise ConfigError(f"train.compile=True: {missing}; use train.compile=False")
    tuned = record.tuning or _tuned(cfg, model, loader, given)
    ways = Ways.from_dict({**_ways(tuned), **given})
    record.tuning = {**tuned, "ways": ways.to_dict()}
    if tuned.get("reason"):
        logger.info("Steps are computed with %s: %s", ways, tuned["reason"])
    use_ways(cfg, model, "train", **ways.to_dict())
    needed = tuned.get("workers")
    if cfg.dataloader.train.get("num_workers") == "auto" and isinstance(needed, int) and needed > 0:
        loader.num_workers = min(loader.num_workers, needed)


def given_ways(train: DictConfig) -> dict[str, bool]:
    """The ways that the node ``train`` decides by hand."""
    values = {name: train.get(name) for name in Ways().to_dict()}
    return {name: bool(value) for name, value in values.items() if value is not None}


def _ways(tuned: Mapping[str, Any]) -> Mapping[str, Any]:
    """The ways of a result, which may come from a file that somebody has edited."""
    ways = tuned.get("ways")
    return ways if isinstance(ways, Mapping) else {}


def _tuned(cfg: DictConfig, model: Any, loader: Any, given: Mapping[str, bool]) -> dict[str, Any]:
    """The result of measurements: of another run, from the cache, or new ones."""
    tune = str(cfg.train.get("tune", "off"))  # configs of earlier versions do not have it
    if tune == "off":
        return {}
    if tune != "auto":
        return _of_run(Path(tune))
    if cfg.train.get("shard"):
        return {}  # there is no room for copies
    if not isinstance(loader, TrainLoader):
        return {}  # a user's own, which may not give a batch again
    file = cache_root() / "tuning" / f"{_key(cfg, given)}.json"
    cached = comm.all_gather(_read(file))[0]
    if cached:
        return {**cached, "reason": f"measured before, in {file}"}
    if cfg.train.max_iter < FEWEST:
        return {}
    measured = _measure(cfg, model, loader, given)
    if comm.is_main_process():
        with suppress(OSError):  # a full disk or a read-only home costs later runs a measurement
            file.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(file) as partial:
                partial.write_text(json.dumps(measured, indent=2))
    return {**measured, "reason": "measured"}


def _of_run(folder: Path) -> dict[str, Any]:
    """The result that a run has recorded."""
    record = Record.read(folder) if folder.is_dir() else None
    if record is None or not record.tuning:
        raise ConfigError(
            f"train.tune={folder}: must be auto, off, or the folder of a run whose result.json has a 'tuning'"
        )
    return {"ways": _ways(record.tuning), "reason": f"as in {folder}"}


def _read(file: Path) -> dict[str, Any]:
    """The result in a file of the cache; empty if there is none."""
    with suppress(OSError, ValueError):
        content = json.loads(file.read_bytes())
        return content if isinstance(content, dict) else {}
    return {}


def _key(cfg: DictConfig, given: Mapping[str, bool]) -> str:
    """All that a result depends on, as the name of a file: machine, versions, detector, images, length."""
    parts = [
        (__version__, torch.__version__, torch.get_num_threads(), comm.get_world_size()),
        torch.cuda.get_device_name() if cfg.train.device != "cpu" else _processor(),
        to_plain(OmegaConf.to_container(cfg.model, resolve=True)),
        to_plain(OmegaConf.to_container(cfg.dataloader.train.mapper, resolve=True)),
        (cfg.dataloader.train.total_batch_size, cfg.train.device, dict(cfg.train.amp), dict(given)),
        int(math.log2(cfg.train.max_iter)),  # what is tried: a compilation takes too much of a short run
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _processor() -> str:
    """The model of the CPU, and the number of cores of this process."""
    names = [platform.machine(), platform.processor()]
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        names += sorted({line for line in lines if line.startswith(("model name", "flags"))})
    return f"{names} {len(os.sched_getaffinity(0))}"


def _measure(cfg: DictConfig, model: Any, loader: TrainLoader, given: Mapping[str, bool]) -> dict[str, Any]:
    """Time copies of the detector in pairs of ways, and keep those ways that help."""
    start = time.perf_counter()
    missing = compiler_is_missing(cfg.train.device)
    batch = loader.batch(0)
    before = time.perf_counter()
    loader.batch(1)
    loading = time.perf_counter() - before
    best = _Trial(cfg, model, batch, Ways.from_dict(given))
    for _ in range(2):
        best.step()
    trials: list[dict[str, Any]] = []
    allowed = SHARE * best.seconds[-1] * cfg.train.max_iter
    for name, expected in (("channels_last", 0.0), ("compile", COMPILE_SECONDS)):
        left = allowed - (time.perf_counter() - start)
        if name in given or comm.all_gather(left)[0] < expected + 2 * STEPS * best.seconds[-1]:
            continue
        if name == "compile" and missing:
            logger.info("Nothing is compiled: %s", missing)
            continue
        ways = replace(best.ways, **{name: True})
        try:
            tried = _Trial(cfg, model, batch, ways)
            ratio = _compare(best, tried)
        except (RuntimeError, NotImplementedError) as error:
            trials.append({**ways.to_dict(), "error": one_line(error, with_type=True)})
            continue
        trials += [best.result(), tried.result()]
        logger.info("A step with %s takes %.2f of the time with %s", ways, ratio, best.ways)
        if ratio < GAIN and abs(tried.loss - best.loss) <= TOLERANCE * abs(best.loss):
            best = tried
    needed = math.ceil(SPARE * loading / statistics.median(best.seconds))
    return {
        "ways": best.ways.to_dict(),
        "workers": max(comm.all_gather(needed)),
        "trials": trials,
        "cost_seconds": time.perf_counter() - start,
    }


def _compare(best: _Trial, tried: _Trial) -> float:
    """The time of a step in one way as a share of that in another, whose steps take turns."""
    best.seconds.clear()
    for _ in range(STEPS):
        for trial in (best, tried):
            trial.step()
    tried.seconds.pop(0)  # which may compile
    shares = [own / other for own, other in zip(tried.seconds, best.seconds[1:], strict=True)]
    return statistics.median(shares)


class _Trial:
    """A copy of a detector that computes steps without the optimizer, always with the same batch.

    Args:
        cfg: the tree.
        model: the detector.
        batch: its images.
        ways: how the copy computes.

    Attributes:
        seconds: of each step, means over the processes.
        loss: the sum of the losses, the same.
    """

    def __init__(self, cfg: DictConfig, model: Any, batch: Any, ways: Ways) -> None:
        self.ways, self.batch = ways, batch
        self.model = copy.deepcopy(model).train()
        use_ways(cfg, self.model, "train", **ways.to_dict())
        self.device = torch.device(cfg.train.device)
        precision = precision_of(cfg.train)
        self.dtype = PRECISIONS[precision] if precision else None
        self.seconds: list[float] = []
        self.loss = 0.0

    def step(self) -> None:
        """Compute the losses and the gradients."""
        means = [statistics.fmean(each) for each in zip(*comm.all_gather(self._measure()), strict=True)]
        self.seconds.append(means[0])
        self.loss = means[1]

    def _measure(self) -> tuple[float, float]:
        """Seconds of a step of this process, and the sum of its losses."""
        start = time.perf_counter()
        with seeded(0), EventStorage():
            if self.device.type == "cuda":
                torch.cuda.manual_seed_all(0)  # each step of the training seeds it as well
            with torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None):
                losses: dict[str, torch.Tensor] = self.model(self.batch)
            total = torch.stack([*losses.values()]).sum()
            total.backward()
        loss = total.item()  # waits for the device
        self.model.zero_grad()
        return time.perf_counter() - start, loss

    def result(self) -> dict[str, Any]:
        """What the record of a run says about it."""
        return {**self.ways.to_dict(), "seconds": statistics.median(self.seconds), "loss": self.loss}
