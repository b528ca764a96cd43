"""Two minutes of faults at random: nothing is lost."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "soak.py"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_minutes_of_faults_break_no_promise() -> None:
    command = [sys.executable, str(SCRIPT), "--minutes", "2", "--seed", "1"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr[-2000:]
    assert " 0 broken promises" in result.stdout
