"""``d2timm inspect``: one model in detail, or a list of models."""

from __future__ import annotations

import argparse
import json

import pytest
from helpers import commands

from d2timm.cli import inspect, main


@pytest.mark.slow
def test_description_of_a_model() -> None:
    done = commands.run("inspect", "test_coatnet", "--size", "96x128")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("test_coatnet\n\nlevel ")
    assert "multi-size, padded to multiples of 32" in done.stdout
    assert "multiply-adds at 96x128" in done.stdout


@pytest.mark.slow
def test_unknown_model_is_one_line_on_stderr() -> None:
    done = commands.run("inspect", "resnet18x")
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert "'resnet18x'" in line
    assert "did you mean resnet18" in line


def test_description_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "test_resnet", "--json"]) == 0
    description = json.loads(capsys.readouterr().out)
    assert description["model_name"] == "test_resnet"
    assert [(level["name"], level["stride"]) for level in description["levels"]] == [
        ("res2", 4),
        ("res3", 8),
        ("res4", 16),
        ("res5", 32),
    ]
    assert description["size"] == [512, 512]


# --list


@pytest.mark.parametrize("as_json", [False, True])
def test_list_filters_by_name_and_parameters(as_json: bool, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--list", "test_vit*", "--max-params", "0.5M", *(["--json"] if as_json else [])]
    assert main(["inspect", *arguments]) == 0
    out = capsys.readouterr().out
    if as_json:
        models = [(row["model_name"], f"{row['parameters'] / 1e6:.2f}") for row in json.loads(out)]
    else:
        models = [(line.split()[0], line.split()[1]) for line in out.splitlines()]
    assert models == [("test_vit", "0.36"), ("test_vit2", "0.44")]


def test_list_needs_no_torch() -> None:
    done = commands.run("inspect", "--list", "test_vit*", without=commands.SLOW)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("test_vit ")


def test_list_builds_the_models_of_another_version_of_timm(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", "--list", "test_vit*", "--json"]) == 0
    from_table = capsys.readouterr()
    monkeypatch.setattr("d2timm.backbone.zoo_table.installed_timm", lambda: "9.9.9")
    assert main(["inspect", "--list", "test_vit*", "--json"]) == 0
    built = capsys.readouterr()
    assert json.loads(built.out) == json.loads(from_table.out)
    assert from_table.err == ""
    assert "9.9.9" in built.err


def test_list_works_without_timm(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("d2timm.backbone.zoo_table.installed_timm", lambda: None)
    assert main(["inspect", "--list", "test_vit"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("test_vit ")
    assert err == ""


@pytest.mark.parametrize("version", ["1.0.31", "9.9.9"])
def test_list_without_a_match_is_one_line(
    version: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("d2timm.backbone.zoo_table.installed_timm", lambda: version)
    assert main(["inspect", "--list", "nope*"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[-1].startswith("error: --list 'nope*'")


# The command line


def parse(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    inspect.add_arguments(parser)
    return parser.parse_args(arguments)


@pytest.mark.parametrize(
    ("text", "number"),
    [("12M", 12_000_000), ("0.4m", 400_000), ("300k", 300_000), ("1.1B", 1_100_000_000), ("42", 42)],
)
def test_numbers_may_have_a_unit(text: str, number: int) -> None:
    assert parse("--list", "x", "--max-params", text).max_params == number


@pytest.mark.parametrize(
    ("text", "size"), [("512", (512, 512)), ("800x1333", (800, 1333)), ("64X96", (64, 96))]
)
def test_sizes(text: str, size: tuple[int, int]) -> None:
    assert parse("x", "--size", text).size == size


@pytest.mark.parametrize(
    "arguments",
    [
        ["x", "--size", "16"],
        ["x", "--size", "64x64x64"],
        ["x", "--size", "big"],
        ["--list", "x", "--max-params", "many"],
        ["--list", "x", "--max-params", ""],
    ],
)
def test_invalid_values_are_a_usage_error(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        main(["inspect", *arguments])
    assert error.value.code == 2
    assert "usage: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "fact"),
    [([], "--list"), (["x", "--list", "y*"], "--list"), (["x", "--max-params", "3M"], "--max-params")],
)
def test_arguments_that_contradict_each_other_are_one_line(
    arguments: list[str], fact: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert fact in line
