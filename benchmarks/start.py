#!/usr/bin/env python3
"""Measure how long commands take to start, each in fresh processes.

    python benchmarks/start.py [--repeats 5] [--before PATH_OF_ANOTHER_CHECKOUT] [--only NAME …]

Prints JSON: for each command the goal in seconds on an idle core, and the median, least and most seconds that
passed (``wall``) and that were computed (``cpu``). On a loaded machine only ``cpu`` means anything, and the
ratio of two checkouts, which take turns.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
#: Runs the command line, and exits after the first step of any optimizer
FIRST_STEP = """
import os, sys, threading, time
def watch():
    while not hasattr(sys.modules.get("torch.optim.optimizer"), "register_optimizer_step_post_hook"):
        time.sleep(0.01)
    sys.modules["torch.optim.optimizer"].register_optimizer_step_post_hook(lambda *_: os._exit(0))
threading.Thread(target=watch, daemon=True).start()
from d2timm.cli import main
main()
sys.exit("no training step")
"""
D2TIMM = ["-m", "d2timm"]
#: Name -> goal in seconds (None: as before), arguments of Python; FOLDER is an empty folder
COMMANDS: dict[str, tuple[float | None, list[str]]] = {
    "d2timm --help": (0.2, [*D2TIMM, "--help"]),
    "import d2timm": (0.1, ["-c", "import d2timm"]),
    "inspect --list": (0.3, [*D2TIMM, "inspect", "--list", "convnext*"]),
    "inspect": (3.0, [*D2TIMM, "inspect", "convnext_tiny"]),
    "Hydra composition": (None, ["scripts/hydra_train.py", "--cfg", "job", "backbone=convnext_tiny"]),
    "first training step": (
        4.0,
        ["-c", FIRST_STEP, "train", "--config-file", "lazy_configs/demo.py", "train.output_dir=FOLDER"],
    ),
}


def seconds(arguments: list[str], checkout: Path) -> tuple[float, float]:
    """The seconds that a process of a checkout takes, and those that it computes."""
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as output:
        command = [sys.executable, *(argument.replace("FOLDER", f"{folder}/run") for argument in arguments)]
        environment = {**os.environ, "PYTHONPATH": str(checkout), "HF_HUB_OFFLINE": "1"}
        start = time.perf_counter()
        process = subprocess.Popen(command, cwd=checkout, env=environment, stdout=output, stderr=output)
        _, status, usage = os.wait4(process.pid, 0)
        passed = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            output.seek(0)
            raise RuntimeError(f"{command} in {checkout} failed:\n{output.read().decode()}")
        return passed, usage.ru_utime + usage.ru_stime


def spread(values: tuple[float, ...]) -> dict[str, float]:
    statistic = {"median": statistics.median(values), "least": min(values), "most": max(values)}
    return {name: round(value, 3) for name, value in statistic.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--before", type=Path, metavar="PATH", help="another checkout, to compare with")
    parser.add_argument("--only", nargs="+", choices=COMMANDS, default=list(COMMANDS), metavar="NAME")
    options = parser.parse_args()
    checkouts = {"now": ROOT} | ({"before": options.before.resolve()} if options.before else {})
    results: dict[str, dict[str, object]] = {}
    for name in options.only:
        goal, arguments = COMMANDS[name]
        times: dict[str, list[tuple[float, float]]] = {label: [] for label in checkouts}
        for repeat in range(options.repeats + 1):
            for label, checkout in checkouts.items():
                measured = seconds(arguments, checkout)
                if repeat:  # the first run fills caches of files
                    times[label].append(measured)
        results[name] = {"goal": goal}
        for label, pairs in times.items():
            wall, cpu = zip(*pairs, strict=True)
            results[name][label] = {"wall": spread(wall), "cpu": spread(cpu)}
        print(f"{name}: {json.dumps(results[name])}", file=sys.stderr)
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
