"""Worker processes end with the process that they read for."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

#: Its workers wait to write their next batches, which are larger than a pipe
PROGRAM = """
import multiprocessing, os, signal, sys
from torch.utils.data import DataLoader
from d2timm.data.workers import prepare_worker
loader = DataLoader([bytes(2**20)] * 100, None, num_workers=2, worker_init_fn=prepare_worker)
next(iter_ := iter(loader))
print(*[child.pid for child in multiprocessing.active_children()], flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_workers_of_a_killed_process_end() -> None:
    killed = subprocess.run([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, timeout=120)
    folders = [Path("/proc", pid) for pid in killed.stdout.decode().split()]
    assert len(folders) == 2
    end = time.monotonic() + 30
    while any(folder.is_dir() for folder in folders) and time.monotonic() < end:
        time.sleep(0.1)
    assert not any(folder.is_dir() for folder in folders)
