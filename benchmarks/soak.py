"""Train while things go wrong, and check after each start that nothing is lost.

    python benchmarks/soak.py --minutes 30 --seed 1

A round trains a small detector on the embedded dataset. Its process is killed or interrupted at random
moments, its files are damaged between starts, its disk is full or its memory short; each time it is started
again with --resume. In the end the run must equal one that nothing has happened to, bit by bit. Prints
rounds, faults and broken promises; the exit code is 1 if one is broken.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path

# The runs are forked, which the threads of OpenMP do not survive
os.environ.setdefault("OMP_NUM_THREADS", "1")

from outcomes import differences, outcome
from tiny import TINY

import d2timm.engine.training  # once, and not in each process
from d2timm.cli import main as d2timm
from d2timm.data.datasets import shapes
from d2timm.runs.record import Record

SMALL = [
    *TINY,
    "data.name=shapes",
    "model.backbone.bottom_up.model_name=test_efficientnet",
    "train.max_iter=60",
    "train.eval_period=25",
    "train.checkpointer.period=6",
    "train.log_period=5",
]
VARIANTS: dict[str, list[str]] = {
    "plain": [],
    "EMA, 2 workers": ["train.ema.enabled=True", "dataloader.train.num_workers=2"],
    "accumulation": ["train.accumulate=2", "dataloader.train.total_batch_size=1"],
}
KEPT = 3 + 2  # periodic checkpoints, model_best and model_final
EXIT_CODES = {0, 2, 130, 138, 143, -signal.SIGKILL}
SECONDS = 120  # after which a start hangs


class Run:
    """A run in a folder, started as often as necessary.

    Attributes:
        broken: the promises that were broken.
        faults: how often each kind of fault happened.
    """

    def __init__(self, folder: Path, overrides: list[str], rng: random.Random) -> None:
        self.folder, self.overrides, self.rng = folder, overrides, rng
        self.log = folder.with_name(f"{folder.name}.log")
        self.broken: list[str] = []
        self.faults: Counter[str] = Counter()

    def start(
        self,
        prepare: Callable[[], None] = lambda: None,
        disturb: Callable[[int], None] | None = None,
        short: bool = False,
    ) -> int:
        """Train in a new process until it ends; returns its exit code, negative for a signal.

        Args:
            prepare: called in the new process.
            disturb: called here with its id.
            short: whether memory is so short that Python itself may fail, with any exit code.
        """
        self.log.write_text("")
        before = self._record()
        pid = os.fork()
        if pid == 0:
            self._train(prepare)
        begin = time.monotonic()
        if disturb:
            disturb(pid)
        while True:
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                break
            if time.monotonic() - begin > SECONDS:
                self.broken.append("a start hangs")
                os.killpg(pid, signal.SIGKILL)
            time.sleep(0.01)
        code = os.waitstatus_to_exitcode(status)
        self._check(code, pid, short, before)
        return code

    def _record(self) -> bytes | None:
        file = self.folder / "result.json"
        return file.read_bytes() if file.is_file() else None

    def _train(self, prepare: Callable[[], None]) -> None:
        code = 99
        try:
            os.setsid()
            output = os.open(self.log, os.O_WRONLY | os.O_APPEND)
            os.dup2(output, 1)
            os.dup2(output, 2)
            prepare()
            arguments = [*self.overrides, f"train.output_dir={self.folder}", "--resume"]
            code = d2timm(["train", "--config-file", "mask_rcnn_timm.py", *arguments])
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(code)

    def _check(self, code: int, pid: int, short: bool, before: bytes | None) -> None:
        text = self.log.read_text(errors="replace")
        if code not in EXIT_CODES and not short:
            self.broken.append(f"exit code {code}: {text[-300:]}")
        if "Traceback (most recent call last)" in text and not short:
            self.broken.append(f"a traceback: {text[-500:]}")
        if code == 2 and len([line for line in text.splitlines() if line.startswith("error: ")]) != 1:
            self.broken.append("a mistake is not one line")
        if _members(pid) and not _wait(lambda: not _members(pid)):
            self.broken.append("a process is left")
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
        expected = {0: "done", 130: "interrupted", 138: "interrupted", 143: "interrupted"}.get(code)
        begun = self._record() != before  # a signal may come first
        with contextlib.suppress(ValueError):
            record = Record.read(self.folder)
            if expected and record and record.status != expected and (begun or code == 0):
                self.broken.append(f"status {record.status} after exit code {code}")
        if code == 0 and (left := [file.name for file in self.folder.glob(".*@*")]):
            self.broken.append(f"files are left: {left}")
        if len(files := list(self.folder.glob("*.pth"))) > KEPT + 1:
            self.broken.append(f"{len(files)} checkpoints")

    # Faults while it runs

    def kill(self) -> None:
        """Kill it at a random moment."""
        self._signal(signal.SIGKILL)

    def kill_while_saving(self) -> None:
        """Kill it while a file is written."""

        def disturb(pid: int) -> None:
            begin = time.monotonic()
            wait = self.rng.uniform(0, 3)
            while time.monotonic() - begin < wait + 5:
                if time.monotonic() - begin > wait and any(self.folder.glob(".model*@*")):
                    break
                time.sleep(0.001)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)

        self.start(disturb=disturb)

    def interrupt(self) -> None:
        """Send a signal that asks it to stop."""
        self._signal(self.rng.choice([signal.SIGTERM, signal.SIGINT, signal.SIGUSR1]))

    def fill_disk(self) -> None:
        """Let it write no file beyond a size that checkpoints have, as if the disk were full."""
        size = self.rng.randrange(20_000, 3_000_000)

        def prepare() -> None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

        self.start(prepare)

    def starve(self) -> None:
        """Let it allocate hardly more memory than it has now."""
        more = self.rng.randrange(10, 600) * 2**20

        def prepare() -> None:
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            limit = pages * resource.getpagesize() + more
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

        self.start(prepare, short=True)

    def _signal(self, number: signal.Signals) -> None:
        def disturb(pid: int) -> None:
            time.sleep(self.rng.uniform(0.05, 6))
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

        self.start(disturb=disturb)

    # Faults between starts

    def damage_checkpoint(self) -> None:
        """Flip bytes of the newest checkpoint, cut it off or delete it."""
        last = self.folder / "last_checkpoint"
        if not last.is_file():
            return
        file = self.folder / last.read_text()
        others = [f for f in self.folder.glob("model_[0f]*.pth") if f != file]
        if not file.is_file() or not others:
            return
        data = bytearray(file.read_bytes())
        way = self.rng.randrange(3)
        if way == 0:
            for _ in range(self.rng.randrange(1, 9)):
                data[self.rng.randrange(len(data))] ^= self.rng.randrange(1, 256)
            file.write_bytes(data)
        elif way == 1:
            file.write_bytes(data[: self.rng.randrange(len(data))])
        else:
            file.unlink()

    def damage_small_file(self) -> None:
        """Overwrite a file that the run has written with other content, or cut it off."""
        name = self.rng.choice(["metrics.json", "config.yaml", "result.json", "log.txt", "skipped.json"])
        file = self.folder / name
        if file.is_file():
            data = file.read_bytes()
            way = self.rng.randrange(3)
            file.write_bytes([data[: len(data) // 2], b"\xff\x00{[", b""][way])

    def leave_files(self) -> None:
        """Leave temporary files as a killed process does."""
        if self.folder.is_dir():
            (self.folder / f".model_0000005.pth.999999@{os.uname().nodename}").write_bytes(b"x" * 1000)

    FAULTS = (
        *(kill, kill, kill, kill_while_saving, interrupt, interrupt, fill_disk, starve),
        *(damage_checkpoint, damage_checkpoint, damage_small_file, leave_files),
    )

    def disturb(self) -> None:
        """Let something go wrong."""
        fault = self.rng.choice(self.FAULTS)
        self.faults[(fault.__doc__ or "").strip().rstrip(".")] += 1
        fault(self)


def _members(group: int) -> list[int]:
    """The processes of a group that have not ended."""
    members = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, pgrp = stat.read_text().rpartition(")")[2].split()[:3]
            if int(pgrp) == group and state != "Z":
                members.append(int(stat.parent.name))
    return members


def _wait(condition: Callable[[], bool], seconds: float = 10) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def soak(folder: Path, minutes: float, seed: int, most_faults: int = 8) -> list[str]:
    """Run rounds for so many minutes; returns the broken promises."""
    rng = random.Random(seed)
    end = time.monotonic() + 60 * minutes
    expected = {}
    faults: Counter[str] = Counter()
    broken: list[str] = []
    rounds = 0
    while time.monotonic() < end:
        name = rng.choice([*VARIANTS])
        overrides = [*SMALL, *VARIANTS[name]]
        if name not in expected:
            reference = Run(folder / "reference", overrides, rng)
            if code := reference.start():
                return [f"exit code {code} without a fault: {reference.log.read_text()[-500:]}"]
            expected[name] = outcome(reference.folder)
            shutil.rmtree(reference.folder)
        run = Run(folder / "run", overrides, rng)
        for _ in range(rng.randrange(1, most_faults)):
            run.disturb()
            if time.monotonic() > end:
                break
        if run.start() != 0:
            run.broken.append(f"does not continue: {run.log.read_text()[-300:]}")
        elif found := differences(outcome(run.folder), expected[name]):
            run.broken.append(f"{len(found)} differences, such as {found[:3]}")
        rounds += 1
        faults += run.faults
        for promise in run.broken:
            print(f"round {rounds} ({name}; {dict(run.faults)}): {promise}", flush=True)
        broken += run.broken
        shutil.rmtree(run.folder, ignore_errors=True)
    print(f"{rounds} rounds, {sum(faults.values())} faults, {len(broken)} broken promises")
    for fault, count in faults.most_common():
        print(f"  {count:4} {fault}")
    return broken


def main() -> int:
    """Run the script; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["D2TIMM_CACHE"] = f"{folder}/cache"
        shapes.COUNTS = {"train": 24, "val": 6}
        return int(bool(soak(Path(folder), options.minutes, options.seed)))


if __name__ == "__main__":
    sys.exit(main())
