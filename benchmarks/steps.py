#!/usr/bin/env python3
"""Measure a training step: Mask R-CNN of this project against detectron2's own, with the same weights.

    python benchmarks/steps.py [--images 2] [--size 480 640] [--rounds 6] [--device cpu] [--precision bf16]
        [--channels-last] [--compile]

Both trainers take turns in one process on the same images, from the same weights, with SGD as in the
baseline's recipe. The figure is the median of the ratios of each round; the first round is not counted.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import time
from typing import Any

import torch
from detectron2.engine import AMPTrainer, SimpleTrainer
from detectron2.solver.build import get_default_optimizer_params
from detectron2.utils.events import EventStorage
from native import batch, both

from d2timm.engine.optim import build_optimizer
from d2timm.engine.trainer import PRECISIONS, build_trainer
from d2timm.modeling.ways import Ways, apply_ways
from d2timm.utils.quiet import silence
from d2timm.utils.seeds import seed_generators

SEED = 0


def trainers(options: argparse.Namespace) -> dict[str, SimpleTrainer]:
    cfg, ours, native = both(options.device)
    cfg.train.seed = SEED
    cfg.train.amp.enabled = options.precision is not None
    cfg.train.amp.precision = options.precision or "fp16"
    apply_ways(ours, Ways(options.channels_last, options.compile), max(options.size))
    data = batch(options.images, *options.size)
    rate = cfg.optimizer.lr * options.images / cfg.train.reference_batch_size
    cfg.train.reference_batch_size, cfg.optimizer.lr = None, rate
    parameters = get_default_optimizer_params(native, weight_decay_norm=0.0)
    sgd = torch.optim.SGD(parameters, lr=rate, momentum=0.9, weight_decay=1e-4)
    kind: Any = AMPTrainer if options.precision else SimpleTrainer
    extra = {"precision": PRECISIONS[options.precision]} if options.precision else {}
    return {
        "detectron2": kind(native, itertools.repeat(data), sgd, **extra),
        "d2timm": build_trainer(cfg.train, ours, itertools.repeat(data), build_optimizer(cfg, ours)),
    }


def step(trainer: SimpleTrainer, number: int, device: str) -> float:
    trainer.iter = trainer.storage.iter = number
    start = time.perf_counter()
    with trainer.storage:
        seed_generators(SEED, number, 0, 0)  # as our trainer does: both sample the same proposals
        trainer.run_step()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=2)
    parser.add_argument("--size", type=int, nargs=2, default=[480, 640], metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--precision", choices=PRECISIONS)
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--compile", action="store_true")
    options = parser.parse_args()
    silence()
    pair = trainers(options)
    for trainer in pair.values():
        trainer.storage = EventStorage()
        trainer.model.train()
    rounds = [
        {name: step(trainer, number, options.device) for name, trainer in pair.items()}
        for number in range(options.rounds)
    ]
    ratios = [seconds["d2timm"] / seconds["detectron2"] for seconds in rounds[1:]]
    losses = [
        [value for value, _ in trainer.storage.history("total_loss").values()] for trainer in pair.values()
    ]
    result = {
        "images": options.images,
        "size": options.size,
        "device": options.device,
        "threads": torch.get_num_threads(),
        "seconds": {name: statistics.median(r[name] for r in rounds[1:]) for name in pair},
        "ratio": statistics.median(ratios),
        "ratios": ratios,
        "losses": dict(zip(pair, losses, strict=True)),
        "largest_difference_of_losses": max(abs(a - b) for a, b in zip(*losses, strict=True)),
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
