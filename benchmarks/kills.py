"""Kill trainings at random moments, continue each once, and compare their ends with uninterrupted ones.

    python benchmarks/kills.py --kills 20 --seed 1

Every fourth kill hits a checkpoint that is being written. Prints a line for each kill, and how many values
were compared; the exit code is 1 if one differs.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

# The runs are forked, which the threads of OpenMP do not survive
os.environ.setdefault("OMP_NUM_THREADS", "1")

from outcomes import differences, outcome
from soak import SMALL, Run

from d2timm.data.datasets import shapes

EMA = ["train.ema.enabled=True", "train.ema.decay=0.9"]
VARIANTS: dict[str, list[str]] = {
    "0 workers": ["dataloader.train.num_workers=0"],
    "2 workers, EMA": ["dataloader.train.num_workers=2", *EMA],
    "0 workers, EMA, accumulation": [*EMA, "train.accumulate=2", "dataloader.train.total_batch_size=1"],
    "two processes, EMA": [*EMA, "--num-gpus", "2"],
}
#: Parts of an outcome, by the paths of their values
PARTS = {
    "weights": "checkpoint/model/",
    "averaged weights": "checkpoint/ema/",
    "optimizer": "checkpoint/trainer/optimizer/",
    "position in the data, seeds, counters": "checkpoint/",
    "metrics.json": "metrics.json/",
    "TensorBoard": "tensorboard/",
    "result.json": "result.json/",
}


def kill(run: Run, seconds: float, while_saving: bool) -> str | None:
    """Start a run and kill it; returns where, or None if it ended before.

    Args:
        run: has not been started.
        seconds: until the kill, or until a checkpoint is waited for.
        while_saving: whether to wait until a checkpoint is being written.
    """
    moment: list[str] = []

    def disturb(pid: int) -> None:
        begin = time.monotonic()
        while os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            late = time.monotonic() - begin > seconds
            if late and (not while_saving or any(run.folder.glob(".model*@*"))):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGKILL)
                break
            time.sleep(0.0005 if late else 0.01)
        else:
            return
        partial = [file.name.split(".pth")[0][1:] for file in run.folder.glob(".model*@*")]
        moment.append(
            f"{time.monotonic() - begin:.1f} s" + "".join(f", while {p} is written" for p in partial)
        )

    code = run.start(disturb=disturb)
    if code != -signal.SIGKILL or (while_saving and not any(run.folder.glob(".model*@*"))):
        return None
    return moment[0]


def part_of(path: str) -> str:
    """The part of an outcome to which a value belongs."""
    return next(part for part, prefix in PARTS.items() if path.startswith(prefix))


def main() -> int:
    """Run the script; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    expected: dict[str, tuple[dict[str, Any], float]] = {}
    different = 0
    with tempfile.TemporaryDirectory() as folder:
        os.environ["D2TIMM_CACHE"] = f"{folder}/cache"
        shapes.COUNTS = {"train": 24, "val": 6}
        for number in range(options.kills):
            name = [*VARIANTS][number // 4 % len(VARIANTS)]
            overrides = [*SMALL, *VARIANTS[name]]
            if name not in expected:
                begin, run = time.monotonic(), Run(Path(folder, "whole"), overrides, rng)
                if run.start() != 0:
                    sys.exit(run.log.read_text()[-1000:])
                expected[name] = outcome(run.folder), time.monotonic() - begin
                shutil.rmtree(run.folder)
            whole, seconds = expected[name]
            where = None
            while where is None:
                run = Run(Path(folder, "run"), overrides, rng)
                shutil.rmtree(run.folder, ignore_errors=True)
                where = kill(run, rng.uniform(0.1, seconds), while_saving=number % 4 == 3)
            last = run.folder / "last_checkpoint"
            resumed = last.read_text() if last.is_file() else "the start"
            code = run.start()
            found = differences(outcome(run.folder), whole) if code == 0 else [f"exit code {code}"]
            different += bool(found or run.broken)
            result = "identical" if not found else f"{len(found)} differences, such as {found[:3]}"
            print(f"{number + 1:3}  {name}: killed after {where}; from {resumed}: {result}", *run.broken)
            sys.stdout.flush()
    print(f"{options.kills - different} of {options.kills} identical. Values compared in each:")
    for name, (whole, _) in expected.items():
        counts = Counter(map(part_of, whole))
        print(f"  {name}: " + ", ".join(f"{count} of {part}" for part, count in counts.items()))
    return int(bool(different))


if __name__ == "__main__":
    sys.exit(main())
