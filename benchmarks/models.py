#!/usr/bin/env python3
"""Measure steps and detection of Mask R-CNN with several timm models, eager and compiled.

    python benchmarks/models.py [--models NAME …] [--images 16] [--size 800 1333] [--precision bf16]
        [--rounds 5] [--no-compile]

For each model a line of JSON: seconds of a training step and of the detection in an image, eager and compiled
(and how long the first compiled step takes); seconds of the backbone's forward and backward pass against
timm's bare model on the same images, by turns; peak memory; and, on a GPU, how often a step waits for it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

import timm
import torch
from detectron2.utils.events import EventStorage
from native import batch
from torch import Tensor, nn

from d2timm import TimmBackbone, get_config
from d2timm.config.build import build_model
from d2timm.engine.optim import build_optimizer
from d2timm.engine.trainer import PRECISIONS, build_trainer
from d2timm.modeling.ways import Ways, apply_ways
from d2timm.runs.memory import peak_memory, reset_peak_memory
from d2timm.utils.quiet import silence

MODELS = ["resnet50", "convnext_tiny", "swin_tiny_patch4_window7_224", "vit_small_patch16_224"]
MODELS += ["xcit_small_12_p8_224", "regnety_016"]


def config(name: str, options: argparse.Namespace) -> Any:
    cfg = get_config("mask_rcnn_timm.py")
    cfg.data.name, cfg.train.device = "coco_2017", options.device
    cfg.model.backbone.bottom_up.update(model_name=name, pretrained=False)
    cfg.train.amp.enabled = options.precision is not None
    cfg.train.amp.precision = options.precision or "fp16"
    cfg.train.log_period = 100
    return cfg


def timed(run: Callable[[], object], options: argparse.Namespace) -> float:
    start = time.perf_counter()
    run()
    if options.device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def median(run: Callable[[], object], options: argparse.Namespace) -> float:
    timed(run, options)
    return statistics.median(timed(run, options) for _ in range(options.rounds))


def waits(run: Callable[[], object], options: argparse.Namespace) -> int | None:
    """How often a step waits for the GPU."""
    if options.device == "cpu":
        return None
    torch.cuda.set_sync_debug_mode("warn")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run()
    torch.cuda.set_sync_debug_mode("default")
    return sum("synchronizing" in str(warning.message) for warning in caught)


def detector(name: str, ways: Ways, options: argparse.Namespace) -> dict[str, Any]:
    """Seconds of a step, of its first call, and of the detection in an image."""
    torch.manual_seed(0)
    cfg = config(name, options)
    model: Any = build_model(cfg)
    apply_ways(model, ways, max(options.size))
    data = batch(options.images, *options.size)
    trainer = build_trainer(cfg.train, model, itertools.repeat(data), build_optimizer(cfg, model))
    trainer.storage = EventStorage()
    trainer.iter = 0
    model.train()
    reset_peak_memory()

    def step() -> None:
        trainer.iter += 1
        with trainer.storage:
            trainer.run_step()

    result: dict[str, Any] = {"first_step": timed(step, options), "step": median(step, options)}
    result |= {"peak_memory": peak_memory(), "waits": waits(step, options)}
    model.eval()
    dtype = PRECISIONS[options.precision] if options.precision else None
    with torch.no_grad(), torch.autocast(options.device, dtype, enabled=dtype is not None):
        result["detection"] = median(lambda: model(data[:1]), options)
    return result


def backbones(name: str, options: argparse.Namespace) -> dict[str, float]:
    """Forward and backward pass of the backbone and of timm's bare model, by turns."""
    ours = TimmBackbone(name).to(options.device).train()
    side = ours.spec.trial_size
    indices = list(ours.out_indices)
    bare = timm.create_model(name, features_only=True, out_indices=indices).to(options.device).train()
    images = torch.rand(options.images, 3, *side, device=options.device)
    dtype = PRECISIONS[options.precision] if options.precision else None

    def run(model: nn.Module, outputs: Callable[[Any], list[Tensor]]) -> None:
        with torch.autocast(options.device, dtype, enabled=dtype is not None):
            maps = outputs(model(images))
        torch.stack([m.float().mean() for m in maps]).sum().backward()

    pairs = [
        (timed(lambda: run(bare, list), options), timed(lambda: run(ours, lambda m: [*m.values()]), options))
        for _ in range(options.rounds + 1)
    ][1:]
    return {
        "timm": statistics.median(pair[0] for pair in pairs),
        "ours": statistics.median(pair[1] for pair in pairs),
        "ratio": statistics.median(pair[1] / pair[0] for pair in pairs),
    }


def main() -> None:
    gpu = torch.cuda.is_available()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=MODELS, metavar="NAME")
    parser.add_argument("--images", type=int, default=16 if gpu else 1)
    size = [800, 1333] if gpu else [480, 640]
    parser.add_argument("--size", type=int, nargs=2, default=size, metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cuda" if gpu else "cpu")
    parser.add_argument("--precision", choices=PRECISIONS, default="bf16" if gpu else None)
    parser.add_argument("--no-compile", action="store_true")
    options = parser.parse_args()
    silence()
    for name in options.models:
        result: dict[str, Any] = {"model": name, "images": options.images, "size": options.size}
        kinds = {"eager": Ways(), "channels_last": Ways(channels_last=True), "compiled": Ways(compile=True)}
        for kind, ways in kinds.items():
            if ways.compile and options.no_compile:
                continue
            result[kind] = detector(name, ways, options)
            torch._dynamo.reset()
        result["backbone"] = backbones(name, options)
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
