#!/usr/bin/env python3
"""Compare exported files with detectron2's own inference over photographs: differences and time.

    python benchmarks/exports.py output photographs/*.jpg [--formats .pt2 .onnx] [--threshold 0.3]

Exports the detector in each format, then runs the three in turn on each image. A row of the table covers all
images: how many have the same number of objects, the largest differences of matched objects, the median time.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from tabulate import tabulate

from d2timm.errors import ConfigError
from d2timm.export.export import export_run
from d2timm.export.formats import Runner, open_program
from d2timm.export.program import Detector
from d2timm.export.verify import Difference, compare, reference_result
from d2timm.inference.trained import open_run
from d2timm.utils.images import read_image
from d2timm.utils.quiet import silence

HEADER = [
    "",
    "images with as many",
    "objects",
    "boxes within (px)",
    "scores within",
    "mask pixels that differ",
    "seconds per image (median)",
]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", help="a run folder")
    parser.add_argument("images", nargs="+", metavar="IMAGE")
    parser.add_argument("--weights", metavar="FILE")
    parser.add_argument("--formats", nargs="+", default=[".pt2", ".onnx"], metavar="SUFFIX")
    parser.add_argument("--threshold", type=float, default=0.3, help="count objects above this score (0.3)")
    options = parser.parse_args()
    silence()
    try:
        benchmark(options)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def benchmark(options: argparse.Namespace) -> None:
    trained = open_run(options.run, options.weights, "cpu")
    names = Detector(trained).output_names
    runners = {suffix: export(suffix, options) for suffix in options.formats}
    seconds: dict[str, list[float]] = {"eager": [], **{suffix: [] for suffix in runners}}
    differences: dict[str, list[tuple[Difference, bool]]] = {suffix: [] for suffix in runners}
    for file in options.images:
        picture = np.array(read_image(file, "RGB"))  # a copy, which torch may write to
        start = time.perf_counter()
        expected = reference_result(trained, picture, options.threshold)
        seconds["eager"].append(time.perf_counter() - start)
        for suffix, run in runners.items():
            image = torch.from_numpy(picture)
            if not differences[suffix]:
                run(image)  # warm-up
            start = time.perf_counter()
            outputs = run(image)
            seconds[suffix].append(time.perf_counter() - start)
            result = {name: x.numpy() for name, x in zip(names, outputs, strict=True)}
            difference = compare(expected, result)
            differences[suffix].append((difference, len(expected["boxes"]) == len(result["boxes"])))
            print(f"{file} {suffix}: {difference}", flush=True)
    rows = [["eager", None, None, None, None, None, statistics.median(seconds["eager"])]]
    rows += [row(suffix, differences[suffix], seconds[suffix]) for suffix in runners]
    print(tabulate(rows, HEADER, floatfmt=("", "", "", ".2e", ".2e", ".1e", ".2f")))


def export(suffix: str, options: argparse.Namespace) -> Runner:
    """Export the detector to a temporary file and open it."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, f"detector{suffix}")
        start = time.perf_counter()
        export_run(options.run, file, weights=options.weights, score_threshold=options.threshold)
        megabytes = file.stat().st_size / 1e6
        print(f"{suffix}: {megabytes:.1f} MB in {time.perf_counter() - start:.0f} s", flush=True)
        return open_program(file, suffix)


def row(suffix: str, results: Sequence[tuple[Difference, bool]], seconds: Sequence[float]) -> list[object]:
    differences = [difference for difference, _ in results]
    return [
        suffix,
        f"{sum(same_number for _, same_number in results)} of {len(results)}",
        sum(difference.objects for difference in differences),
        max(difference.boxes for difference in differences),
        max(difference.scores for difference in differences),
        sum(difference.pixels for difference in differences)
        / max(sum(difference.area for difference in differences), 1),
        statistics.median(seconds),
    ]


if __name__ == "__main__":
    sys.exit(main())
