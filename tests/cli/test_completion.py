"""``d2timm completion``: shell code, and what the shells complete with it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import timm

from d2timm.cli import main
from d2timm.cli.app import COMMANDS


def complete(line: str, folder: Path) -> list[str]:
    """The completions of a command line, by the protocol of argcomplete."""
    output = folder / "completions"
    environment = {
        **os.environ,
        "_ARGCOMPLETE": "1",
        "_ARGCOMPLETE_IFS": "\n",
        "_ARGCOMPLETE_STDOUT_FILENAME": str(output),
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
        "COMP_TYPE": "9",
    }
    done = subprocess.run([sys.executable, "-m", "d2timm"], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return [word.strip() for word in output.read_text().split("\n")]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_code_for_each_shell(shell: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    code = capsys.readouterr().out
    assert "d2timm" in code
    assert "_ARGCOMPLETE" in code
    if program := shutil.which(shell):
        (tmp_path / "code").write_text(code)
        subprocess.run([program, "-n", str(tmp_path / "code")], check=True)


def test_other_shells_are_a_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        main(["completion", "powershell"])
    assert error.value.code == 2
    assert "'powershell'" in capsys.readouterr().err


def test_commands_are_completed(tmp_path: Path) -> None:
    assert set(COMMANDS) <= set(complete("d2timm ", tmp_path))
    assert sorted(complete("d2timm convert", tmp_path)) == ["convert-config", "convert-weights"]


def test_options_are_completed(tmp_path: Path) -> None:
    assert complete("d2timm inspect --max", tmp_path) == ["--max-params"]


def test_models_are_completed(tmp_path: Path) -> None:
    assert set(complete("d2timm inspect xcit_sm", tmp_path)) == set(timm.list_models("xcit_sm*"))


def test_recipes_are_completed(tmp_path: Path) -> None:
    assert complete("d2timm train --config-file retinanet_t", tmp_path) == ["retinanet_timm.py"]
