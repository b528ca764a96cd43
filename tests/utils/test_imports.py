"""Quick imports leave no trace, and give the same modules."""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path

import pytest

from d2timm.utils.imports import import_quickly, without_compiler


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module that notes what it finds when it is imported."""
    lines = ("import gc, sys", "hides = sys.modules.get('wandb', 0) is None", "collects = gc.isenabled()")
    (tmp_path / "large_package.py").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    monkeypatch.delitem(sys.modules, "large_package", raising=False)
    return "large_package"


def test_nothing_is_left_behind(package: str) -> None:
    import_quickly(package)
    module = sys.modules[package]
    assert module.hides
    assert not module.collects
    assert "wandb" not in sys.modules
    assert gc.isenabled()


def test_what_is_imported_already_stays(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", sys)
    gc.disable()
    try:
        import_quickly(package)
        assert not gc.isenabled()
    finally:
        gc.enable()
    assert not sys.modules[package].hides
    assert sys.modules["wandb"] is sys


def test_failed_import_leaves_nothing_behind(package: str) -> None:
    with pytest.raises(ModuleNotFoundError, match="no_such_package"):
        import_quickly("no_such_package")
    assert "wandb" not in sys.modules
    assert gc.isenabled()


def test_second_import_freezes_nothing(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    frozen = []
    monkeypatch.setattr(gc, "freeze", lambda: frozen.append(package))
    import_quickly(package)
    import_quickly(package)
    assert frozen == [package]


def test_compiler_that_is_imported_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch._dynamo", sys)
    with without_compiler():
        assert sys.modules["torch._dynamo"] is sys
    assert sys.modules["torch._dynamo"] is sys


COMPILER = """
import sys
from d2timm.utils.imports import without_compiler
with without_compiler():
    import torch, torchvision
    excluded = torch.compiler.disable(lambda x: x + 1)
    assert excluded(1) == 2
    assert "torch._inductor" not in sys.modules
    {inside}
assert "torch._dynamo" not in sys.modules or sys.modules["torch._dynamo"].__file__
import torch._dynamo
assert callable(torch._dynamo.optimize) and torch._dynamo is sys.modules["torch._dynamo"]
assert excluded(1) == 2
assert isinstance(torchvision.ops.roi_align.__globals__["is_compile_supported"]("cpu"), bool)
"""


@pytest.mark.parametrize(
    "inside", ["pass", "from torch._dynamo.utils import counters", "import torch._dynamo.config"]
)
def test_compiler_is_imported_when_it_is_needed(inside: str) -> None:
    program = [sys.executable, "-W", "ignore", "-c", COMPILER.format(inside=inside)]
    done = subprocess.run(program, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
