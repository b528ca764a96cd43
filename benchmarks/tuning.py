#!/usr/bin/env python3
"""Show what ``train.tune=auto`` chooses on this machine for several models, and what it costs.

    python benchmarks/tuning.py [--models NAME …] [--iterations 2000] [key=value …]

Each model is tuned as a run of that many iterations on the embedded dataset would be, with an empty cache. A
line of JSON for each: the ways, the measured seconds of a step in each way, the number of workers that read
images fast enough, the seconds that all of it took, and their share of the run.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile

from d2timm import get_config
from d2timm.config.build import build_model, instantiate, resolve_dataset
from d2timm.config.overrides import apply_overrides
from d2timm.engine.tuning import choose_ways
from d2timm.runs.record import Record
from d2timm.utils.quiet import silence

MODELS = [
    "resnet50",
    "convnext_tiny",
    "swin_tiny_patch4_window7_224",
    "vit_small_patch16_224",
    "xcit_small_12_p8_224",
    "regnety_016",
]


def tune(name: str, iterations: int, overrides: list[str]) -> dict[str, object]:
    """The result of tuning for a model."""
    model_name = f"model.backbone.bottom_up.model_name={name}"
    more = ["data.name=shapes", f"train.max_iter={iterations}", "train.tune=auto", *overrides]
    cfg = apply_overrides(get_config("mask_rcnn_timm.py"), [model_name, *more])
    resolve_dataset(cfg)
    record = Record()
    choose_ways(cfg, build_model(cfg), instantiate(cfg.dataloader.train), record)
    result = dict(record.tuning)
    trials = result.get("trials") or [{}]
    seconds = trials[0].get("seconds")
    share = result["cost_seconds"] / (seconds * iterations) if seconds else None
    return {"model": name, **result, "share_of_the_run": share}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=MODELS, metavar="NAME")
    parser.add_argument("--iterations", type=int, default=2000)
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    options = parser.parse_intermixed_args()
    silence()
    with tempfile.TemporaryDirectory() as cache:
        os.environ["D2TIMM_CACHE"] = cache
        for name in options.models:
            print(json.dumps(tune(name, options.iterations, options.overrides)), flush=True)


if __name__ == "__main__":
    main()
