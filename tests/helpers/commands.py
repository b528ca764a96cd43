"""The commands, in this process and by their scripts in processes of their own."""

from __future__ import annotations

import argparse
import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

from d2timm import cli

SCRIPTS = Path(__file__).parents[2] / "scripts"
#: Script -> command
COMMANDS = {
    "lazyconfig_train": "train",
    "hydra_train": "sweep",
    "sweep_report": "report",
    "inspect_backbone": "inspect",
}


def load(script: str) -> ModuleType:
    """The module of a script's command, fresh; ``main()`` runs it with the arguments in ``sys.argv``."""
    name = COMMANDS.get(script, script.replace("_", "-"))
    file = Path(cli.__file__).with_name(f"{name.replace('-', '_')}.py")
    spec = importlib.util.spec_from_file_location(f"d2timm.cli.{file.stem}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.main = lambda *arguments: _run(module, *(arguments or (sys.argv[1:],)))  # type: ignore[attr-defined]
    if not hasattr(module, "parse"):
        module.parse = lambda *given: _parser(module).parse_intermixed_args(given[-1])  # type: ignore[attr-defined]
    return module


def _parser(module: ModuleType) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=module.__name__)
    module.add_arguments(parser)
    return parser


def _run(module: ModuleType, arguments: list[str]) -> int:
    """Run a module's command as ``d2timm`` does, errors included."""
    from d2timm.cli import app

    original = app._load
    app._load = lambda name: module
    try:
        return cli.main([module.__name__.rpartition(".")[2].replace("_", "-"), *arguments])
    finally:
        app._load = original


def run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A script in a process of its own."""
    command = [sys.executable, str(SCRIPTS / f"{script}.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True)
