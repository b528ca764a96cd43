"""What a sweep costs beside the training in it.

    python benchmarks/sweeps.py            # all of the below, about 15 minutes on two idle cores
    python benchmarks/sweeps.py start jobs

start   seconds from a command to the start of its first job, and of --help
jobs    in-process jobs: seconds of each beside its training and evaluation; memory after 2 and after 20
joblib  two jobs at a time beside one after the other: ratio of seconds, and whether the weights are equal
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
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "scripts" / "hydra_train.py"
#: The embedded set with a narrow detector, as in lazy_configs/demo.py
SMALL = [
    "data=shapes",
    "roi_heads=box",
    "model.backbone.out_channels=64",
    "model.proposal_generator.pre_nms_topk=[500,500]",
    "model.proposal_generator.post_nms_topk=[100,100]",
    "model.roi_heads.box_head.fc_dims=[256,256]",
]


def timed(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - start


def start(turns: int = 7) -> None:
    """Composition up to the first job, with the nodes in the cache."""
    job = [sys.executable, __file__, "first-job", "backbone=convnext_atto", "roi_heads=box"]
    subprocess.run(job, check=True, capture_output=True)  # fills the cache
    first = statistics.median(timed(job) for _ in range(turns))
    told = statistics.median(timed([sys.executable, str(SCRIPT), "--help"]) for _ in range(turns))
    print(f"start: {first:.2f} s from the command to its job, --help {told:.2f} s (medians of {turns})")


def run_front_end(run_job: Any, arguments: list[str]) -> int:
    """The script in this process, with another function for its jobs."""
    sys.path.insert(0, str(SCRIPT.parent))
    import hydra_train  # type: ignore[import-not-found]

    from d2timm.sweep import hydra_app as hydra_main
    from d2timm.utils.quiet import silence

    silence()
    hydra_main.run_job = run_job
    sys.argv = [str(SCRIPT), *arguments]
    return int(hydra_train.main())


def first_job(arguments: list[str]) -> None:
    def job(cfg: Any, options: Any) -> None:
        os._exit(0)

    run_front_end(job, arguments)


def jobs(count: int = 20) -> None:
    """In a process of its own, because it is about memory."""
    with tempfile.TemporaryDirectory() as folder:
        told = Path(folder, "jobs.json")
        subprocess.run([sys.executable, __file__, "in-process", str(count), str(told)], check=True)
        rows = json.loads(told.read_text())
    beside = [row["seconds"] - row["train"] - row["evaluation"] for row in rows]
    with_evaluation = [row["seconds"] - row["train"] for row in rows]
    between = [later["start"] - row["end"] for row, later in itertools.pairwise(rows)]
    print(
        f"jobs: {statistics.median(beside):.2f} s beside training and evaluation, "
        f"{statistics.median(with_evaluation):.2f} s beside training, "
        f"{statistics.median(between):.2f} s between jobs (medians of {count})"
    )
    early, late = (row["memory"] / 2**20 for row in (rows[1], rows[-1]))
    print(f"memory: {early:.0f} MiB after 2 jobs, {late:.0f} MiB after {count}: {late / early:.3f}")


def in_process(count: int, told: Path) -> None:
    import d2timm.jobs
    import d2timm.train

    rows: list[dict[str, float]] = []
    evaluation = 0.0
    evaluate = d2timm.train.evaluate

    def timed_evaluate(*args: Any) -> Any:
        nonlocal evaluation
        begin = time.perf_counter()
        try:
            return evaluate(*args)
        finally:
            evaluation += time.perf_counter() - begin

    def job(cfg: Any, options: Any) -> float | None:
        nonlocal evaluation
        evaluation, begin = 0.0, time.perf_counter()
        score = d2timm.jobs.run_job(cfg, options)
        end = time.perf_counter()
        folder = Path(str(told.parent), "sweep", f"seed={len(rows)}")
        train = json.loads((folder / "result.json").read_text())["train_seconds"]
        memory = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        rows.append(
            {
                "start": begin,
                "end": end,
                "seconds": end - begin,
                "train": train,
                "evaluation": evaluation,
                "memory": memory,
            }
        )
        return score

    d2timm.train.evaluate = timed_evaluate
    sweep = [f"train.seed=range({count})", "train.max_iter=20", f"hydra.sweep.dir={told.parent / 'sweep'}"]
    with open(os.devnull, "w") as nothing:
        sys.stdout = nothing
        run_front_end(job, ["-m", "backbone=resnet18d", *SMALL, *sweep])
        sys.stdout = sys.__stdout__
    told.write_text(json.dumps(rows))


def joblib(count: int = 6, iterations: int = 60) -> None:
    """The same runs with one thread each, one after the other and two at a time."""
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
            command = [sys.executable, str(SCRIPT), "-m", "backbone=resnet18d", *SMALL, *sweep]
            seconds[launcher] = timed(command)
        runs = [path.name for path in sorted(Path(folder, "basic").glob("seed=*"))]
        equal = 0
        for run in runs:
            here, there = (
                torch.load(Path(folder, launcher, run, "model_final.pth"), weights_only=True)["model"]
                for launcher in ("basic", "joblib")
            )
            equal += all(torch.equal(here[name], there[name]) for name in here)
    ratio = seconds["joblib"] / seconds["basic"]
    print(
        f"joblib: {seconds['joblib']:.0f} s for {count} jobs, two at a time; one after the other "
        f"{seconds['basic']:.0f} s: {ratio:.2f}; weights of {equal} of {len(runs)} equal bit for bit"
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
