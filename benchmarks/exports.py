#!/usr/bin/env python3
"""An exported detector beside detectron2's own inference: torch.export and ONNX, over photographs.

    python benchmarks/exports.py output photographs/*.jpg [--formats .pt2 .onnx] [--threshold 0.3]

The files are made anew. The figures of a row are of all images: how many have the same number of objects,
how far matched objects are apart, and seconds an image, where the three take turns.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from tabulate import tabulate

from d2timm.errors import ConfigError
from d2timm.export.export import export_run
from d2timm.export.formats import open_program
from d2timm.export.program import Detector
from d2timm.export.verify import compare, find_objects
from d2timm.inference.trained import open_run
from d2timm.utils.images import read_image
from d2timm.utils.quiet import silence


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", help="folder of a run")
    parser.add_argument("images", nargs="+", metavar="IMAGE")
    parser.add_argument("--weights", metavar="FILE")
    parser.add_argument("--formats", nargs="+", default=[".pt2", ".onnx"], metavar="SUFFIX")
    parser.add_argument("--threshold", type=float, default=0.3, help="objects that are surer are counted")
    options = parser.parse_args()
    silence()
    try:
        trained = open_run(options.run, options.weights, "cpu")
        names = Detector(trained).output_names
        runners = {}
        with tempfile.TemporaryDirectory() as folder:
            for suffix in options.formats:
                file = Path(folder, f"detector{suffix}")
                start = time.perf_counter()
                export_run(options.run, file, weights=options.weights, score_threshold=options.threshold)
                megabytes = file.stat().st_size / 1e6
                print(f"{suffix}: {megabytes:.1f} MB in {time.perf_counter() - start:.0f} s", flush=True)
                runners[suffix] = open_program(file, suffix)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2

    seconds: dict[str, list[float]] = {"eager": [], **{suffix: [] for suffix in runners}}
    differences: dict[str, list] = {suffix: [] for suffix in runners}
    for file in options.images:
        picture = np.array(read_image(file, "RGB"))  # writable
        start = time.perf_counter()
        expected = find_objects(trained, picture, options.threshold)
        seconds["eager"].append(time.perf_counter() - start)
        for suffix, run in runners.items():
            image = torch.from_numpy(picture)
            if not differences[suffix]:
                run(image)  # the first one sets things up
            start = time.perf_counter()
            found = run(image)
            seconds[suffix].append(time.perf_counter() - start)
            seen = {name: x.numpy() for name, x in zip(names, found, strict=True)}
            difference = compare(expected, seen)
            differences[suffix].append((difference, len(expected["boxes"]) == len(seen["boxes"])))
            print(f"{file} {suffix}: {difference}", flush=True)
    rows = [["eager", None, None, None, None, None, statistics.median(seconds["eager"])]]
    for suffix, found in differences.items():
        rows.append(
            [
                suffix,
                f"{sum(same for _, same in found)} of {len(found)}",
                sum(difference.found for difference, _ in found),
                max(difference.boxes for difference, _ in found),
                max(difference.scores for difference, _ in found),
                sum(difference.pixels for difference, _ in found)
                / max(sum(difference.area for difference, _ in found), 1),
                statistics.median(seconds[suffix]),
            ]
        )
    header = [
        "",
        "images with as many",
        "objects",
        "boxes within (px)",
        "scores within",
        "mask pixels that differ",
        "seconds an image (median)",
    ]
    print(tabulate(rows, header, floatfmt=("", "", "", ".2e", ".2e", ".1e", ".2f")))
    return 0


if __name__ == "__main__":
    sys.exit(main())
