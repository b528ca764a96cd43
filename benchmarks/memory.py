#!/usr/bin/env python3
"""Measure whether the memory of a training grows with its iterations.

    python benchmarks/memory.py [--iterations 300] [--config-file demo.py] [key=value …]

It trains a config with its own loader, whose images have several sizes, and notes after every tenth of the
iterations what the process holds (resident), and on a GPU what torch has allocated. JSON: all of them in MiB,
and the growth per 100 iterations from the slope of a line through the second half.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
from pathlib import Path

import torch
from detectron2.utils.events import EventStorage

from d2timm import get_config
from d2timm.config.build import build_model, instantiate, resolve_dataset
from d2timm.config.overrides import apply_overrides
from d2timm.engine.optim import build_optimizer
from d2timm.engine.trainer import build_trainer
from d2timm.utils.quiet import silence

MIB = 2**20


def resident() -> float:
    """MiB that the process holds in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / MIB


def growth(iterations: list[int], values: list[float]) -> float:
    """MiB per 100 iterations."""
    half = len(values) // 2
    return round(100 * statistics.linear_regression(iterations[half:], values[half:]).slope, 2)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--iterations", type=int, default=300)
    parser.add_argument("--config-file", default="demo.py")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    options = parser.parse_intermixed_args()
    silence()
    with tempfile.TemporaryDirectory() as folder:
        sizes = "data.settings.shapes.train_short_edges=[96,128,160,192]"
        overrides = [f"train.output_dir={folder}", sizes, *options.overrides]
        cfg = apply_overrides(get_config(options.config_file), overrides)
        resolve_dataset(cfg)
        model = build_model(cfg).train()
        loader = instantiate(cfg.dataloader.train)
        trainer = build_trainer(cfg.train, model, loader, build_optimizer(cfg, model))
        trainer.storage = EventStorage()
        iterations, held, allocated = [], [], []
        for number in range(options.iterations):
            trainer.iter = trainer.storage.iter = number
            with trainer.storage:
                trainer.run_step()
                trainer.storage.step()
            if (number + 1) % max(options.iterations // 10, 1) == 0:
                iterations.append(number + 1)
                held.append(round(resident(), 1))
                allocated.append(torch.cuda.memory_allocated() / MIB if torch.cuda.is_available() else 0.0)
    result = {"iterations": iterations, "resident": held, "growth": growth(iterations, held)}
    if torch.cuda.is_available():
        result |= {"allocated": allocated, "growth_allocated": growth(iterations, allocated)}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
