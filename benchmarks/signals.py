"""Send a signal to a training or a sweep that is started in each possible way, and see how it ends.

    python benchmarks/signals.py                     # all starts, each with SIGTERM, SIGINT and SIGUSR1
    python benchmarks/signals.py single joblib

Prints the exit code, the seconds until the end, the number of processes that are left, and the status and the
checkpoint of each run that had started. The exit code is 1 unless every command ends with 128 + the signal
and leaves no process, and every run that had started is interrupted.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tiny import TINY

from d2timm.runs.checkpoint import LAST
from d2timm.runs.record import Record

SMALL = [
    *TINY,
    "model.backbone.bottom_up.pretrained=False",
    "train.max_iter=5000",
    "train.eval_period=0",
    "train.log_period=4",
    "train.checkpointer.period=500",
    "train.threads=1",
]
TRAIN = ["train", "--config-file", "mask_rcnn_timm.py", "data.name=shapes"]
TRAIN += ["model.backbone.bottom_up.model_name=test_resnet"]
SWEEP = ["sweep", "-m", "data=shapes", "backbone=test_resnet,test_efficientnet,test_vit"]
STARTS = {
    "single": TRAIN,
    "two processes": [*TRAIN, "--num-gpus", "2"],
    "basic": SWEEP,
    "joblib": [*SWEEP, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"],
    "submitit": [*SWEEP, "hydra/launcher=submitit_local"],
    "ray": [*SWEEP, "hydra/launcher=ray"],
}
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
MARK = "D2TIMM_SIGNALS"  # an environment variable, which child processes inherit
SECONDS = 180  # after which a start or an end hangs


def send(name: str, number: signal.Signals, folder: Path) -> bool:
    """Start a command, send it a signal once a run trains, and print how it ends; whether that is right."""
    place = "hydra.sweep.dir" if STARTS[name][0] == "sweep" else "train.output_dir"
    command = [sys.executable, "-m", "d2timm", *STARTS[name], *SMALL, f"{place}={folder}"]
    with (folder.parent / "output.txt").open("w") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, cwd=folder.parent, env={**os.environ, MARK: str(folder)}
        )
    begin = time.monotonic()
    while not any(file.stat().st_size > 2000 for file in folder.rglob("metrics.json")):
        if process.poll() is not None or time.monotonic() - begin > SECONDS:
            process.kill()
            sys.exit(f"{name} does not start: {(folder.parent / 'output.txt').read_text()[-2000:]}")
        time.sleep(0.05)
    begin = time.monotonic()
    process.send_signal(number)
    try:
        code: int | str = process.wait(SECONDS)
    except subprocess.TimeoutExpired:
        code = "hangs"
    seconds = time.monotonic() - begin
    time.sleep(2)  # a process may need a moment to vanish
    left = _marked(str(folder))
    runs = [file.parent for file in sorted(folder.rglob("result.json"))]
    records = [Record.read(run) for run in runs]
    tags = [(run / LAST).read_text() if (run / LAST).is_file() else "no checkpoint" for run in runs]
    states = [
        f"{record.status} after {record.iterations}: {tag}"
        for record, tag in zip(records, tags, strict=True)
        if record
    ]
    print(
        f"{name:14} {number.name}: {code}, {seconds:.1f} s, {len(left)} left; {'; '.join(states)}", flush=True
    )
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    interrupted = all(record and record.status == "interrupted" for record in records)
    return code == 128 + number and not left and interrupted


def _marked(folder: str) -> list[int]:
    """The processes that descend from the command in this folder, besides it, and have not ended."""
    found = []
    for environment in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):  # a process of another user, or one that has just ended
            if f"{MARK}={folder}".encode() in environment.read_bytes().split(b"\0"):
                found.append(int(environment.parent.name))
    return found


def main() -> int:
    """Run the script; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("starts", nargs="*", metavar="START", help=", ".join(STARTS))
    options = parser.parse_args()
    if unknown := set(options.starts) - STARTS.keys():
        parser.error(f"{', '.join(unknown)}: choose from {', '.join(STARTS)}")
    right = True
    with tempfile.TemporaryDirectory() as root:
        for name in options.starts or STARTS:
            for number in SIGNALS:
                folder = Path(root, "run")
                right = send(name, number, folder) and right
                shutil.rmtree(folder)
    return int(not right)


if __name__ == "__main__":
    sys.exit(main())
