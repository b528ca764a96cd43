#!/usr/bin/env python3
"""Measure the cost of each route: TimmBackbone against timm's bare model, at the native size.

    python benchmarks/routes.py [--models NAME …] [--repeats 30]

Both compute the features at the model's own strides, so that the comparison contains no resampling. They
take turns in one process with the same image and weights; the figure is the ratio of their medians.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import timm
import torch
from tabulate import tabulate
from torch import Tensor

from d2timm import TimmBackbone
from d2timm.backbone.probing import probe
from d2timm.utils.quiet import silence

MODELS = [
    "resnet50",  # any size
    "vit_small_patch16_224",  # dynamic size
    "swin_tiny_patch4_window7_224",  # dynamic size and padding
    "convnext_tiny",  # padding
    "maxvit_tiny_rw_224",  # padding to the native size
    "coatnet_nano_rw_224",  # multi-size
    "beit_base_patch16_224",  # multi-size
    "levit_256",  # resizing
    "mixer_b16_224",  # resizing
    "crossvit_small_240",  # resizing
]


def pair(model_name: str) -> tuple[str, Callable[[Tensor], object], Callable[[Tensor], object], Tensor]:
    """The route, timm's model, ours with the same weights, and an image."""
    spec = probe(model_name)
    deepest = {
        feature.stride: feature.index for feature in spec.features if feature.exact and not feature.lost
    }
    deepest = deepest or {round(feature.stride): feature.index for feature in spec.features}
    indices = sorted(deepest.values())
    strides = [round(spec.features[index].stride) for index in indices]
    bare = timm.create_model(model_name, features_only=True, out_indices=indices).eval()
    ours = TimmBackbone(model_name, indices, [f"level{i}" for i in indices], strides).eval()
    return str(spec.input_spec), bare, ours, torch.randn(1, 3, *spec.trial_size)


def seconds(run: Callable[[Tensor], object], image: Tensor) -> float:
    start = time.perf_counter()
    run(image)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=MODELS, metavar="NAME")
    parser.add_argument("--repeats", type=int, default=30)
    options = parser.parse_args()
    silence()
    rows = []
    for name in options.models:
        route, bare, ours, image = pair(name)
        with torch.inference_mode():
            for run in (bare, ours):
                seconds(run, image)
            times = [(seconds(bare, image), seconds(ours, image)) for _ in range(options.repeats)]
        timm_ms, our_ms = (1e3 * statistics.median(column) for column in zip(*times, strict=True))
        rows.append([name, route, "x".join(map(str, image.shape[-2:])), timm_ms, our_ms, our_ms / timm_ms])
    header = ["model", "route", "image", "timm (ms)", "TimmBackbone (ms)", "ratio"]
    print(tabulate(rows, header, floatfmt=("", "", "", ".1f", ".1f", ".3f")))


if __name__ == "__main__":
    main()
