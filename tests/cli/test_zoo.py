"""``d2timm zoo``: the table of all models, filtered and sorted."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from helpers import commands

from d2timm.backbone.zoo_table import read_rows
from d2timm.cli import main


def rows(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, Any]]:
    assert main(["zoo", *arguments, "--json"]) == 0
    return list(json.loads(capsys.readouterr().out))


def test_overview_counts_every_model_by_kind_and_route_without_torch() -> None:
    done = commands.run("zoo", without=commands.SLOW)
    assert (done.returncode, done.stderr) == (0, "")
    heading, kinds, routes = done.stdout.split("\n\n")
    number = len(read_rows())
    assert f"{number} models" in heading
    for table in (kinds, routes):
        assert sum(int(count) for count in re.findall(r"(\d+)$", table, re.MULTILINE)) == number


def test_json_is_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert rows(capsys) == sorted(read_rows(), key=lambda row: row["model_name"])


def test_filters(capsys: pytest.CaptureFixture[str]) -> None:
    models = rows(capsys, "convnext*", "--max-params", "30M", "--kind", "pyramid")
    expected = [
        row
        for row in read_rows()
        if row["model_name"].startswith("convnext") and row["parameters"] <= 30e6 and row["kind"] == "pyramid"
    ]
    assert models == expected != []


@pytest.mark.parametrize("key", ["model_name", "parameters", "multiply_adds"])
def test_order(key: str, capsys: pytest.CaptureFixture[str]) -> None:
    values = [row[key] for row in rows(capsys, "--sort", key)]
    assert values == sorted(values)


def test_table_has_a_line_for_each_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["zoo", "test_vit*"]) == 0
    header, _, *lines = capsys.readouterr().out.splitlines()
    assert header.split()[:3] == ["model", "kind", "route"]
    names = [row["model_name"] for row in read_rows() if row["model_name"].startswith("test_vit")]
    assert [line.split()[0] for line in lines[: len(names)]] == names
    assert lines[-1] == f"{len(names)} models"


@pytest.mark.parametrize("arguments", [["nope*"], ["resnet18", "--max-params", "1k"]])
def test_filters_that_match_no_model_are_one_line(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["zoo", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert line.startswith("error: no model")


def test_another_version_of_timm_is_noted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("d2timm.backbone.zoo_table.installed_timm", lambda: "9.9.9")
    assert main(["zoo", "test_vit*"]) == 0
    assert "9.9.9" in capsys.readouterr().out.splitlines()[-1]
