"""scripts/inspect_backbone.py: one model in detail, or which models there are."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from helpers import commands

SCRIPT = Path(__file__).parents[2] / "scripts" / "inspect_backbone.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return commands.load("inspect_backbone")


run = functools.partial(commands.run, "inspect_backbone")


@pytest.mark.slow
def test_tells_of_a_model() -> None:
    done = run("test_coatnet", "--size", "96x128")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("test_coatnet\n\nlevel ")
    assert "multi-size, padded to multiples of 32" in done.stdout
    assert "multiply-adds at 96x128" in done.stdout


@pytest.mark.slow
def test_unknown_model_is_one_line_on_stderr() -> None:
    done = run("resnet18x")
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: model_name='resnet18x'")
    assert "did you mean resnet18" in line


def test_tells_of_a_model_in_json(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["inspect", "test_resnet", "--json"])
    assert script.main() == 0
    told = json.loads(capsys.readouterr().out)
    assert told["model_name"] == "test_resnet"
    assert [(level["name"], level["stride"]) for level in told["levels"]] == [
        ("res2", 4),
        ("res3", 8),
        ("res4", 16),
        ("res5", 32),
    ]
    assert told["size"] == [512, 512]


@pytest.mark.parametrize("json_too", [False, True])
def test_finds_models(
    json_too: bool, script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--list", "test_vit*", "--max-params", "0.4M", *(["--json"] if json_too else [])]
    monkeypatch.setattr(sys, "argv", ["inspect", *arguments])
    assert script.main() == 0
    out = capsys.readouterr().out
    if json_too:
        found = [(row["model_name"], f"{row['parameters'] / 1e6:.2f}") for row in json.loads(out)]
    else:
        found = [(line.split()[0], line.split()[1]) for line in out.splitlines()]
    assert found == [("test_vit", "0.31"), ("test_vit2", "0.39")]


def test_pattern_that_nothing_matches(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["inspect", "--list", "nope*"])
    assert script.main() == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: --list 'nope*'")


# The command line


@pytest.mark.parametrize(
    ("text", "number"),
    [("12M", 12_000_000), ("0.4m", 400_000), ("300k", 300_000), ("1.1B", 1_100_000_000), ("42", 42)],
)
def test_numbers(script: ModuleType, text: str, number: int) -> None:
    assert script.parse(["--list", "x", "--max-params", text]).max_params == number


@pytest.mark.parametrize(
    ("text", "size"), [("512", (512, 512)), ("800x1333", (800, 1333)), ("64X96", (64, 96))]
)
def test_sizes(script: ModuleType, text: str, size: tuple[int, int]) -> None:
    assert script.parse(["x", "--size", text]).size == size


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["x", "--list", "y*"],
        ["x", "--max-params", "3M"],
        ["x", "--size", "16"],
        ["x", "--size", "64x64x64"],
        ["x", "--size", "big"],
        ["--list", "x", "--max-params", "many"],
        ["--list", "x", "--max-params", ""],
    ],
)
def test_what_makes_no_sense_is_told(
    script: ModuleType, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as error:
        script.parse(arguments)
    assert error.value.code == 2
    assert "usage: " in capsys.readouterr().err


def test_help_waits_for_no_import() -> None:
    command = [sys.executable, "-X", "importtime", SCRIPT, "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "--max-params" in done.stdout
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "argparse" in imported
    assert not {"torch", "timm", "d2timm"} & imported
