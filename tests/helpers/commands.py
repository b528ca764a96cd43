"""The command ``d2timm`` and the scripts in separate processes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

SCRIPTS = Path(__file__).parents[2] / "scripts"

#: Packages that take long to import
SLOW = ("torch", "timm", "detectron2", "matplotlib")

_WITHOUT = """
import sys
for name in sys.argv.pop(1).split(","):
    sys.modules[name] = None  # importing it raises ModuleNotFoundError
from d2timm.cli import main
sys.exit(main())
"""


def run(
    *arguments: str, without: Sequence[str] = (), cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run ``d2timm`` with arguments.

    Args:
        arguments: the sub-command and its arguments.
        without: packages that cannot be imported, as if they were not installed.
        cwd: the working directory.
    """
    program = ["-c", _WITHOUT, ",".join(without)] if without else ["-m", "d2timm"]
    return subprocess.run([sys.executable, *program, *arguments], capture_output=True, text=True, cwd=cwd)


def run_script(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run ``scripts/NAME.py``."""
    return subprocess.run(
        [sys.executable, str(SCRIPTS / f"{name}.py"), *arguments], capture_output=True, text=True
    )
