"""scripts/convert_config.py: an old config in, a file that trains out; mistakes in a line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from helpers import commands

OLD = """
MODEL:
  MASK_ON: true
  BACKBONE:
    CONFIG: {OUT_FEATURES: [layer1, layer2, layer3, layer4], STRIDES: [4, 8, 16, 32]}
  ROI_HEADS: {NAME: StandardROIHeads}
  ROI_BOX_HEAD: {NUM_FC: 1}
SOLVER: {MAX_ITER: 1234, STEPS: [1000]}
VIS_PERIOD: 3
"""
NAME = ["--opts", "MODEL.BACKBONE.NAME", "build_test_resnet_fpn_backbone"]


def command(monkeypatch: pytest.MonkeyPatch, name: str, *arguments: object) -> int:
    """A script in this process."""
    monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
    code: int = commands.load(name).main()
    return code


def test_the_file_that_is_written_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    old, new = tmp_path / "old.yaml", tmp_path / "old.py"
    old.write_text(OLD)
    assert command(monkeypatch, "convert_config", old, *NAME) == 0
    screen = capsys.readouterr().out
    assert screen.startswith(f"{old} -> {new}\nconverted: ")
    assert "not converted:\n  VIS_PERIOD=3\n      there is nothing like it here\n" in screen
    assert command(monkeypatch, "lazyconfig_train", "--config-file", new, "--dry-run") == 0
    screen = capsys.readouterr().out
    assert screen.startswith("test_resnet, native size")
    assert "1234 iterations of 16 images" in screen


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["none.yaml"], "none.yaml: no such file"),
        (["old.yaml"], "build_resnet_backbone is the default, detectron2's own: name a model of timm"),
        (["old.yaml", "out.txt"], "out.txt: a LazyConfig file ends in .py"),
        (["old.yaml", "old.yaml"], "ends in .py"),
        (["old.yaml", "there.py"], "there.py is there already: give another name"),
        (["old.yaml", "out.py", "--opts", "SEED"], "a key and a value in turn are needed"),
    ],
)
def test_mistakes_are_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    told: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("old.yaml").write_text(OLD)
    Path("there.py").write_text("")
    assert command(monkeypatch, "convert_config", *arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert told in line
    assert {file.name for file in tmp_path.iterdir()} == {"old.yaml", "there.py"}


def test_help_does_not_wait_for_torch() -> None:
    code = "import sys, runpy; sys.argv = ['x', '--help']\ntry: runpy.run_path({!r}, run_name='__main__')\n"
    code += "finally: assert 'torch' not in sys.modules"
    script = str(commands.SCRIPTS / "convert_config.py")
    done = subprocess.run([sys.executable, "-c", code.format(script)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--opts" in done.stdout
