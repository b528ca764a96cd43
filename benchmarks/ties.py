#!/usr/bin/env python3
"""Count how often the verdict on two identical candidates is a tie.

    python benchmarks/ties.py RUN RUN … [--repeats 10] [--seeds 3]

The runs differ in their seed only. Each repeat divides some of them at random into two candidates of so many
seeds, as the finals of d2timm choose have, and compares these by the bootstrap of the verdict. Prints JSON:
the scores of all runs, and of each repeat the difference, its interval of 95 %, and whether it is a tie.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from d2timm.report.bootstrap import Matches, compare, draw_scores


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folders of runs")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--task", default="bbox")
    options = parser.parse_args()
    runs = [Matches.read(run / "inference" / f"matches-{options.task}.npz") for run in options.runs]
    if len(runs) < 2 * options.seeds:
        parser.error(f"{len(runs)} runs are too few for two candidates with {options.seeds} seeds")
    generator = np.random.default_rng(0)
    repeats: list[dict[str, Any]] = []
    for _ in range(options.repeats):
        chosen = generator.permutation(len(runs))[: 2 * options.seeds]
        sides = [[runs[i] for i in part] for part in np.split(chosen, 2)]
        means = [float(np.mean([run.average_precision() for run in side])) for side in sides]
        drawn = draw_scores(sides)
        result = compare(drawn[:, 0], drawn[:, 1], means[0] - means[1])
        repeats.append(
            {"difference": result.difference, "interval": [result.low, result.high], "tie": result.is_tie}
        )
    scores = [run.average_precision() for run in runs]
    ties = sum(repeat["tie"] for repeat in repeats)
    print(json.dumps({"scores": scores, "repeats": repeats, "ties": ties}, indent=2))


if __name__ == "__main__":
    main()
