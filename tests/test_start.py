"""What each command imports, and what it does without: benchmarks/start.py measures why."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

#: Runs ``d2timm`` with the arguments, or imports the module that is the only one; prints which modules it has
_PROGRAM = """
import contextlib, importlib, io, json, sys
forbidden, *arguments = sys.argv[1:]
with contextlib.redirect_stdout(io.StringIO()):
    if len(arguments) == 1 and arguments[0].startswith("d2timm"):
        importlib.import_module(arguments[0])
    else:
        from d2timm.cli import main
        assert main(arguments) == 0
print(json.dumps([name for name in forbidden.split(",") if name in sys.modules]))
"""
LARGE = ("torch", "torchvision", "timm", "detectron2", "matplotlib", "cv2", "wandb")
UNUSED = ("matplotlib", "wandb", "IPython", "pandas")
COMPILER = ("torch._inductor", "triton")
TRAIN = ("train", "--config-file", "faster_rcnn_timm.py", "data.name=shapes", "--dry-run")
SMALL = "model.backbone.bottom_up.model_name=test_resnet"

#: Command, or module -> modules that it does not import
FORBIDDEN = {
    ("d2timm",): (*LARGE, "numpy", "omegaconf", "PIL"),
    ("d2timm.utils.images",): ("torch", "cv2", "detectron2"),
    ("--help",): (*LARGE, "numpy", "omegaconf", "PIL"),
    ("inspect", "--list", "test_vit*"): (*LARGE, "numpy", "PIL"),
    ("inspect", "test_resnet"): (*UNUSED, *COMPILER),
    (*TRAIN, SMALL): (*UNUSED, *COMPILER),
    ("d2timm.engine.process",): ("matplotlib", "plotly", "jinja2.environment"),
    ("d2timm.report.page.serve",): (*LARGE, "plotly", "jinja2"),
    ("d2timm.report.leaderboard",): ("torch", "timm", "detectron2", "plotly", "jinja2"),
}


@pytest.mark.parametrize("command", FORBIDDEN, ids=" ".join)
def test_command_does_not_import(command: tuple[str, ...], tmp_path: Path) -> None:
    program = [sys.executable, "-W", "ignore", "-c", _PROGRAM, ",".join(FORBIDDEN[command]), *command]
    done = subprocess.run(program, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == []
