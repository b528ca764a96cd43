"""The command ``d2timm`` itself: help, version, errors and exit codes; scripts are the same as commands."""

from __future__ import annotations

import argparse
import errno
import os
import re
import signal
import subprocess
import sys
import time
from importlib.metadata import entry_points, version
from types import SimpleNamespace
from typing import Any

import pytest
from helpers import commands
from omegaconf.errors import InterpolationKeyError

from d2timm.cli import app, main
from d2timm.errors import ConfigError
from d2timm.utils.signals import STOP_SIGNALS

#: Script -> command
SCRIPTS = {
    "lazyconfig_train": "train",
    "hydra_train": "sweep",
    "sweep_report": "report",
    "inspect_backbone": "inspect",
    "predict": "predict",
    "export": "export",
    "run_onnx": "run-onnx",
    "convert_weights": "convert-weights",
    "convert_config": "convert-config",
    "install_detectron2": "install-detectron2",
}


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Replace the command ``report`` by one that raises an error: ``fake(error)``."""

    def replace(error: BaseException) -> None:
        def run(options: argparse.Namespace) -> int:
            raise error

        command = SimpleNamespace(__doc__="Fail.", add_arguments=lambda parser: None, run=run)
        monkeypatch.setattr(app, "_load", lambda name: command)

    return replace


def test_help_lists_every_command_in_its_group(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    sections = capsys.readouterr().out.split("\n\n")
    for heading, names in app.GROUPS.items():
        (section,) = (section for section in sections if section.startswith(f"{heading}:\n"))
        lines = section.splitlines()[1:]
        assert [line.split()[0] for line in lines] == list(names)
        assert all(len(line.split()) > 3 for line in lines), "each has a summary"


def test_output_that_nobody_reads_is_no_traceback() -> None:
    command = [sys.executable, "-m", "d2timm", "zoo", "*"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == b""
    assert process.returncode == app.BROKEN_PIPE


def test_broken_pipe_that_is_not_the_output_is_an_error(fake: Any) -> None:
    fake(BrokenPipeError("a worker died"))
    with pytest.raises(BrokenPipeError, match="a worker died"):
        main(["report"])


def test_help_without_slow_imports() -> None:
    done = commands.run("--help", without=(*commands.SLOW, "hydra", "omegaconf", "numpy"))
    assert (done.returncode, done.stderr) == (0, "")
    assert "usage: d2timm COMMAND" in done.stdout


def test_no_command_prints_the_help_as_a_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "usage: d2timm COMMAND" in capsys.readouterr().out


@pytest.mark.parametrize("flag", ["--version", "-V"])
def test_version(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([flag]) == 0
    assert capsys.readouterr().out == f"d2timm {version('d2timm')}\n"


@pytest.mark.parametrize(("typed", "suggestion"), [("trian", "train"), ("exprot", "export"), ("--jsno", "")])
def test_unknown_command_is_one_line_with_similar_names(
    typed: str, suggestion: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([typed, "more"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert line.startswith(f"error: '{typed}'")
    assert suggestion in line


@pytest.mark.parametrize("name", app.COMMANDS)
def test_help_of_a_command_has_examples_and_no_slow_imports(name: str) -> None:
    done = commands.run(name, "--help", without=(*commands.SLOW, "hydra", "omegaconf", "numpy"))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: d2timm {name}")
    assert re.search(rf"^ {{4}}.*d2timm {name} \S", done.stdout, re.MULTILINE), "an example"


def test_command_is_installed_and_runs_as_a_module() -> None:
    (entry,) = entry_points(group="console_scripts", name="d2timm")
    assert entry.load() is main
    done = commands.run("--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"d2timm {version('d2timm')}\n"


# Errors


def test_mistake_of_the_user_is_one_line(fake: Any, capsys: pytest.CaptureFixture[str]) -> None:
    fake(ConfigError("train.seed=x: a number is needed"))
    assert main(["report"]) == 2
    assert capsys.readouterr() == ("", "error: train.seed=x: a number is needed\n")


def test_notes_of_an_error_are_printed(fake: Any, capsys: pytest.CaptureFixture[str]) -> None:
    error = ConfigError("3 weights would be lost")
    error.__notes__ = ["a report\nof many lines"]  # type: ignore[attr-defined]
    fake(error)
    assert main(["report"]) == 2
    assert capsys.readouterr() == ("a report\nof many lines\n", "error: 3 weights would be lost\n")


def test_interruption_has_the_exit_code_of_shells(fake: Any, capsys: pytest.CaptureFixture[str]) -> None:
    fake(KeyboardInterrupt())
    assert main(["report"]) == 130
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "a/b"), "error: a/b: Permission denied\n"),
        (OSError(errno.ENOSPC, "No space left on device"), "error: No space left on device\n"),
    ],
)
def test_error_of_the_file_system_is_one_line(
    error: OSError, line: str, fake: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    fake(error)
    assert main(["report"]) == 2
    assert capsys.readouterr() == ("", line)


def test_value_that_refers_to_no_other_is_one_line(fake: Any, capsys: pytest.CaptureFixture[str]) -> None:
    fake(InterpolationKeyError("Interpolation key 'nope' not found\n    full_key: a.b"))
    assert main(["report"]) == 2
    assert capsys.readouterr() == ("", "error: Interpolation key 'nope' not found full_key: a.b\n")


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_signal_ends_any_command(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(options: argparse.Namespace) -> int:
        os.kill(os.getpid(), number)
        time.sleep(5)
        return 0

    earlier = signal.getsignal(number)
    command = SimpleNamespace(__doc__="Wait.", add_arguments=lambda parser: None, run=run)
    monkeypatch.setattr(app, "_load", lambda name: command)
    assert main(["report"]) == 128 + number
    assert capsys.readouterr() == ("", f"interrupted by {number.name}\n")
    assert signal.getsignal(number) == earlier


def test_name_of_a_file_that_is_too_long(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--config-file", "9" * 300]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"error: {'9' * 300}: File name too long"


@pytest.mark.parametrize("error", [ValueError("a bug"), ModuleNotFoundError("x", name="wandb")])
def test_other_errors_keep_their_traceback(fake: Any, error: Exception) -> None:
    fake(error)
    with pytest.raises(type(error)):
        main(["report"])


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "--config-file", "mask_rcnn_timm.py"],
        ["inspect", "resnet18"],
        ["predict", "--run", "x", "--output", "y", "z"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_missing_detectron2_is_one_line_that_names_the_command(arguments: list[str]) -> None:
    done = commands.run(*arguments, without=["detectron2"])
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "d2timm install-detectron2" in line
    assert "Traceback" not in done.stderr


# Scripts


def test_every_script_has_a_command() -> None:
    scripts = {file.stem for file in commands.SCRIPTS.glob("*.py")} - {"check_zoo"}
    assert scripts == set(SCRIPTS)
    assert set(SCRIPTS.values()) == set(app.COMMANDS) - {"zoo", "completion", "check-data", "choose"}


@pytest.mark.parametrize("script", SCRIPTS)
def test_script_is_the_same_as_its_command(script: str) -> None:
    by_script = commands.run_script(script, "--help")
    by_command = commands.run(SCRIPTS[script], "--help")
    assert (by_script.returncode, by_script.stderr) == (0, "")
    usage, _, rest = by_script.stdout.partition("\n\n")
    assert usage.startswith(f"usage: scripts/{script}.py ")
    assert rest == by_command.stdout.partition("\n\n")[2]


def test_script_returns_the_exit_code_of_its_command() -> None:
    done = commands.run_script("sweep_report", "missing")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: missing ")
