"""Slow checks that run in full only if the code that they check has changed since they last passed.

A test says ``@pytest.mark.sampled(CHECK, every=N)``. If the fingerprint of the check's code is the recorded
one, only each N-th of its parameters runs, and without N none; ``--full`` runs all, and after a run of all
tests ``make test-full`` records the fingerprints.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

__all__ = ["CHECKS", "MARK", "changed", "code_of", "fingerprint", "select", "write"]

ROOT = Path(__file__).parents[2]
FILE = ROOT / "tests" / "checks.json"
MARK = "sampled"
#: Check -> the code that it depends on, files and folders
CHECKS = {
    "sweeps": ("d2timm/sweep", "d2timm/runs", "d2timm/report", "hydra_plugins", "conf"),
    "detectors": ("d2timm/modeling", "d2timm/config", "lazy_configs"),
    "datasets": ("d2timm/data", "d2timm/evaluation", "lazy_configs/common/data"),
    "resume": ("d2timm/engine", "d2timm/runs", "d2timm/data", "benchmarks/soak.py"),
    "processes": ("d2timm/engine",),
    "choices": ("d2timm/choose", "d2timm/sweep/processes.py", "d2timm/engine/cool_down.py", "conf/choose"),
    "export": ("d2timm/export", "d2timm/modeling"),
}


def fingerprint(code: Sequence[Path]) -> str:
    """A hash of files and of all files below folders; of Python, without docstrings and comments."""
    digest = hashlib.sha256()
    for path in code:
        assert path.exists(), f"{path} does not exist"
        for file in sorted([path, *path.rglob("*")]):
            if file.suffix == ".py":
                digest.update(code_of(file.read_text()).encode())
            elif file.is_file() and file.suffix != ".pyc":
                digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def code_of(text: str) -> str:
    """Python code without docstrings and comments."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        if isinstance(node, documented) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree)


@functools.cache
def changed(check: str) -> bool:
    """Whether the code of a check has changed since it last passed in full."""
    recorded = json.loads(FILE.read_text()) if FILE.is_file() else {}
    return recorded.get(check) != fingerprint([ROOT / path for path in CHECKS[check]])


def select(items: Sequence[pytest.Item], full: bool) -> tuple[list[pytest.Item], list[pytest.Item]]:
    """Divide tests into those that run and those that are left out."""
    numbers: Counter[str] = Counter()
    runs, left_out = [], []
    for item in items:
        mark = item.get_closest_marker(MARK)
        if mark is None or full or changed(*mark.args):
            runs.append(item)
            continue
        every = mark.kwargs.get("every")
        function = item.nodeid.partition("[")[0]
        (runs if every and numbers[function] % every == 0 else left_out).append(item)
        numbers[function] += 1
    return runs, left_out


def write() -> None:
    """Record the fingerprints of all checks."""
    table = {check: fingerprint([ROOT / path for path in code]) for check, code in CHECKS.items()}
    FILE.write_text(json.dumps(table, indent=2) + "\n")
