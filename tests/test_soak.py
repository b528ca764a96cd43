"""Faults at random for a few minutes: nothing is lost."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "soak.py"


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("minutes", ["0.5", pytest.param("2", marks=pytest.mark.sampled("resume"))])
def test_faults_break_no_promise(minutes: str) -> None:
    command = [sys.executable, str(SCRIPT), "--minutes", minutes, "--seed", "1"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr[-2000:]
    assert " 0 broken promises" in result.stdout
