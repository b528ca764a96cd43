#!/usr/bin/env python3
"""Measure detection: Mask R-CNN of this project against detectron2's own, with the same weights.

    python benchmarks/inference.py [--size 800 1088] [--rounds 6] [--device cpu] [--channels-last]

Both take turns in one process with the same image, until their masks are pasted into it. The weights are
random, so that 1000 proposals are refined and up to 100 objects are found. The figure is the median of the
ratios of each round; the first round is not counted.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from typing import Any

import torch
from native import batch, both
from torch import nn

from d2timm.modeling.ways import Ways, apply_ways
from d2timm.utils.quiet import silence


def detect(model: nn.Module, image: list[dict[str, Any]], device: str) -> tuple[float, Any]:
    start = time.perf_counter()
    found = model(image)[0]["instances"]
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - start, found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, nargs=2, default=[800, 1088], metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--channels-last", action="store_true")
    options = parser.parse_args()
    silence()
    _, ours, native = both(options.device)
    apply_ways(ours, Ways(options.channels_last), max(options.size))
    image = batch(1, *options.size)
    rounds = []
    with torch.inference_mode():
        for model in (native.eval(), ours.eval()):
            model.roi_heads.box_predictor.test_score_thresh = 0.0
        for _ in range(options.rounds):
            rounds.append((detect(native, image, options.device), detect(ours, image, options.device)))
    ratios = [own[0] / other[0] for other, own in rounds[1:]]
    (_, expected), (_, found) = rounds[-1]
    same = len(found) == len(expected)
    boxes = (found.pred_boxes.tensor - expected.pred_boxes.tensor).abs().max() if same else float("nan")
    result = {
        "size": options.size,
        "device": options.device,
        "threads": torch.get_num_threads(),
        "seconds": {
            "detectron2": statistics.median(other[0] for other, _ in rounds[1:]),
            "d2timm": statistics.median(own[0] for _, own in rounds[1:]),
        },
        "ratio": statistics.median(ratios),
        "ratios": ratios,
        "objects": [len(expected), len(found)],
        "largest_difference_of_boxes": float(boxes),
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
