#!/usr/bin/env python3
"""Measure how time and memory of a training step grow, and fit exponents.

    python benchmarks/growth.py [--model resnet18] [--rounds 3] [--only side objects …]

One quantity varies while the others keep their usual value: the side of the images, the images of a batch,
the classes, and the objects of an image. Each point is a process of its own: the median time of a step, and
its peak memory beyond that of a process that has built the detector. The exponent is the slope of a line
through the logarithms: time ~ quantity ** exponent. JSON, with all points.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

USUAL = {"side": 320, "images": 2, "classes": 80, "objects": 8}
POINTS = {
    "side": [128, 192, 320, 512, 768],
    "images": [1, 2, 4, 8],
    "classes": [1, 10, 80, 400, 1200],
    "objects": [1, 8, 32, 128],
}


def measure(model_name: str, rounds: int, values: dict[str, int]) -> dict[str, float]:
    """Seconds and bytes of a step."""
    import torch
    from detectron2.utils.events import EventStorage
    from native import batch

    from d2timm import get_config
    from d2timm.config.build import build_model
    from d2timm.engine.optim import build_optimizer
    from d2timm.engine.trainer import build_trainer
    from d2timm.runs.memory import peak_memory
    from d2timm.utils.quiet import silence

    silence()
    torch.manual_seed(0)
    cfg = get_config("mask_rcnn_timm.py")
    cfg.data.name, cfg.train.device, cfg.train.amp.enabled = "coco_2017", "cpu", False
    cfg.model.backbone.bottom_up.update(model_name=model_name, pretrained=False)
    cfg.model.roi_heads.num_classes = values["classes"]
    model = build_model(cfg).train()
    side = values["side"]
    data = batch(values["images"], side, side, values["objects"], classes=values["classes"])
    trainer = build_trainer(cfg.train, model, itertools.repeat(data), build_optimizer(cfg, model))
    trainer.storage = EventStorage()
    before, seconds = peak_memory(), []
    for number in range(rounds + 1):
        trainer.iter = trainer.storage.iter = number
        start = time.perf_counter()
        with trainer.storage:
            trainer.run_step()
        seconds.append(time.perf_counter() - start)
    return {"seconds": statistics.median(seconds[1:]), "bytes": peak_memory() - before}


def exponent(points: list[tuple[int, float]]) -> float:
    """The slope of the line through the logarithms of points."""
    x, y = ([math.log(value) for value in column] for column in zip(*points, strict=True))
    centre_x, centre_y = statistics.fmean(x), statistics.fmean(y)
    return sum((a - centre_x) * (b - centre_y) for a, b in zip(x, y, strict=True)) / sum(
        (a - centre_x) ** 2 for a in x
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=POINTS, default=list(POINTS))
    options = parser.parse_args()
    result: dict[str, Any] = {"model": options.model, "usual": USUAL}
    for quantity in options.only:
        points = {}
        for value in POINTS[quantity]:
            with ProcessPoolExecutor(1, get_context("spawn")) as process:
                values = {**USUAL, quantity: value}
                points[value] = process.submit(measure, options.model, options.rounds, values).result()
        exponents = {
            kind: round(exponent([(value, point[kind]) for value, point in points.items()]), 2)
            for kind in ("seconds", "bytes")
        }
        result[quantity] = {"points": points, "exponents": exponents}
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
