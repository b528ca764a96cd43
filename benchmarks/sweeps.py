"""Measure the overhead of a sweep over the training in it.

    python benchmarks/sweeps.py            # all parts, about 15 minutes on two idle cores
    python benchmarks/sweeps.py start jobs

start   seconds from the command to its first job, and of --help
jobs    jobs in one process: seconds of each without training and evaluation; memory after 2 jobs and after 20
joblib  two jobs at a time compared with one by one: ratio of seconds, and whether the weights are equal
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

D2TIMM = [sys.executable, "-m", "d2timm"]
#: The embedded dataset and a narrow detector, as in lazy_configs/demo.py
SMALL = [
    "data=shapes",
    "roi_heads=box",
    "model.backbone.out_channels=64",
    "model.proposal_generator.pre_nms_topk=[500,500]",
    "model.proposal_generator.post_nms_topk=[100,100]",
    "model.roi_heads.box_head.fc_dims=[256,256]",
]


def measure(command: list[str]) -> float:
    """Run a command; returns its seconds."""
    begin = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - begin


def start(repeats: int = 7) -> None:
    """Measure a command until its first job, with the nodes in the cache."""
    job = [sys.executable, __file__, "first-job", "backbone=convnext_atto", "roi_heads=box"]
    subprocess.run(job, check=True, capture_output=True)  # fills the cache
    first = statistics.median(measure(job) for _ in range(repeats))
    help_text = statistics.median(measure([*D2TIMM, "sweep", "--help"]) for _ in range(repeats))
    print(f"start: {first:.2f} s to the first job, {help_text:.2f} s for --help (medians of {repeats})")


def run_sweep(run_job: Callable[..., Any], arguments: list[str]) -> None:
    """Run ``d2timm sweep`` in this process with another function for its jobs."""
    from d2timm.cli import main
    from d2timm.sweep import hydra_app

    hydra_app.run_job = run_job
    if code := main(["sweep", *arguments]):
        sys.exit(code)


def first_job(arguments: list[str]) -> None:
    """Exit at the start of the first job."""

    def job(cfg: Any, options: Any) -> None:
        os._exit(0)

    run_sweep(job, arguments)


def jobs(count: int = 20) -> None:
    """Measure jobs in a new process, whose memory is not affected by other parts."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "jobs.json")
        subprocess.run([sys.executable, __file__, "in-process", str(count), str(file)], check=True)
        rows = json.loads(file.read_text())
    without_both = [row["seconds"] - row["train"] - row["evaluation"] for row in rows]
    without_training = [row["seconds"] - row["train"] for row in rows]
    between = [later["begin"] - row["end"] for row, later in itertools.pairwise(rows)]
    print(
        f"jobs: {statistics.median(without_both):.2f} s without training and evaluation, "
        f"{statistics.median(without_training):.2f} s without training, "
        f"{statistics.median(between):.2f} s between jobs (medians of {count})"
    )
    early, late = (row["memory"] / 2**20 for row in (rows[1], rows[-1]))
    print(f"memory: {early:.0f} MiB after 2 jobs, {late:.0f} MiB after {count}: {late / early:.3f}")


def in_process(count: int, file: Path) -> None:
    """Run a sweep in this process and write the measurements of its jobs to a file."""
    from d2timm.utils.quiet import silence

    silence()
    from d2timm.engine import validation
    from d2timm.sweep.jobs import run_job

    rows: list[dict[str, float]] = []
    evaluation = 0.0
    evaluate = validation.evaluate

    def timed_evaluate(*args: Any, **kwargs: Any) -> Any:
        nonlocal evaluation
        begin = time.perf_counter()
        try:
            return evaluate(*args, **kwargs)
        finally:
            evaluation += time.perf_counter() - begin

    def job(cfg: Any, options: Any) -> float | None:
        nonlocal evaluation
        evaluation, begin = 0.0, time.perf_counter()
        score = run_job(cfg, options)
        end = time.perf_counter()
        folder = file.parent / "sweep" / f"seed={len(rows)}"
        train = json.loads((folder / "result.json").read_text())["train_seconds"]
        memory = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        row = {"begin": begin, "end": end, "seconds": end - begin, "train": train, "evaluation": evaluation}
        rows.append({**row, "memory": memory})
        return score

    validation.evaluate = timed_evaluate
    sweep = [f"train.seed=range({count})", "train.max_iter=20", f"hydra.sweep.dir={file.parent / 'sweep'}"]
    with open(os.devnull, "w") as nothing, redirect_stdout(nothing):
        run_sweep(job, ["-m", "backbone=resnet18d", *SMALL, *sweep])
    file.write_text(json.dumps(rows))


def joblib(count: int = 6, iterations: int = 60) -> None:
    """Compare the same runs, each with one thread, one by one and two at a time."""
    import torch

    with tempfile.TemporaryDirectory() as folder:
        seconds = {}
        for launcher in ("basic", "joblib"):
            sweep = [
                f"train.seed=range({count})",
                f"train.max_iter={iterations}",
                "train.threads=1",
                f"hydra/launcher={launcher}",
                f"hydra.sweep.dir={folder}/{launcher}",
            ]
            seconds[launcher] = measure([*D2TIMM, "sweep", "-m", "backbone=resnet18d", *SMALL, *sweep])
        runs = [path.name for path in sorted(Path(folder, "basic").glob("seed=*"))]
        equal = 0
        for run in runs:
            one, other = (
                torch.load(Path(folder, launcher, run, "model_final.pth"), weights_only=True)["model"]
                for launcher in ("basic", "joblib")
            )
            equal += all(torch.equal(one[name], other[name]) for name in one)
    ratio = seconds["joblib"] / seconds["basic"]
    print(
        f"joblib: {count} jobs take {seconds['joblib']:.0f} s two at a time, {seconds['basic']:.0f} s one by "
        f"one: {ratio:.2f}; the weights of {equal} of {len(runs)} are equal bit for bit"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("parts", nargs="*", default=["start", "jobs", "joblib"])
    parts = parser.parse_args().parts
    for part in parts:
        {"start": start, "jobs": jobs, "joblib": joblib}[part]()


if __name__ == "__main__":
    if sys.argv[1:2] == ["first-job"]:
        first_job(sys.argv[2:])
    elif sys.argv[1:2] == ["in-process"]:
        in_process(int(sys.argv[2]), Path(sys.argv[3]))
    else:
        main()
