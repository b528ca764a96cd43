"""``d2timm sweep``: help, questions that Hydra answers, mistakes, and a real run."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import timm
import yaml
from helpers import commands

from d2timm import get_config
from d2timm.cli import main
from d2timm.config.groups import read_nodes
from d2timm.config.lazy import load, to_plain
from d2timm.sweep.callback import SweepFolder
from d2timm.utils.files import resource_folder


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[..., int]]:
    """Run the command in an empty folder; returns its exit code."""
    log = logging.getLogger()
    handlers, level = list(log.handlers), log.level
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["d2timm"])
    monkeypatch.setattr(SweepFolder, "path", None)
    yield lambda *arguments: main(["sweep", *arguments])
    log.handlers[:] = handlers
    log.setLevel(level)


# Help


@pytest.fixture
def help_text(capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit, match="0"):
        main(["sweep", "--help"])
    return capsys.readouterr().out


def test_help_lists_the_options_of_every_group(help_text: str) -> None:
    text = " ".join(help_text.split())  # long lists are wrapped
    for folder in (resource_folder("lazy_configs") / "common").iterdir():
        options = sorted(file.stem for file in folder.glob("*.py"))
        if options and folder.name != "backbone":
            assert f" {folder.name} {', '.join(options)} " in text


def test_help_is_one_page_and_does_not_list_the_models(help_text: str) -> None:
    assert len(help_text.splitlines()) < 60
    assert max(map(len, help_text.splitlines())) <= 115
    words = set(help_text.replace(",", " ").split())
    assert len(words & set(timm.list_models())) < 10


@pytest.mark.parametrize(
    "text",
    ["--resume", "--dry-run", "--num-gpus", "--repeat-failed", "+sweep=", "small_backbones", "ray", "optuna"],
)
def test_help_shows_flags_and_sweeps(text: str, help_text: str) -> None:
    assert text in help_text


# Questions that Hydra answers


def test_printed_config_is_the_recipe(
    call: Callable[..., int], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert call("--cfg", "job", "roi_heads=box", "train.seed=3") == 0
    recipe: dict[str, Any] = to_plain(get_config("faster_rcnn_timm.py"))
    recipe["train"]["seed"] = 3
    assert yaml.safe_load(capfd.readouterr().out) == recipe
    assert not list(tmp_path.iterdir())


def test_search_path_is_printed(call: Callable[..., int], capfd: pytest.CaptureFixture[str]) -> None:
    assert call("--info", "searchpath") == 0
    assert "conf" in capfd.readouterr().out


def test_shell_completes_names_of_models(
    call: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COMP_LINE", "d2timm backbone=xcit_sm")
    assert call("-sc", "query=bash") == 0
    words = capfd.readouterr().out.split()
    assert sorted(words) == sorted(f"backbone={name}" for name in timm.list_models("xcit_sm*"))


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["backbone=xcit_smal_12_p8_224"], 2),
        (["neck=fpm"], 2),
        (["train.max_itr=3"], 2),
        (["hydra/launcher=joblibs"], 2),
        (["--cfg", "job"], 0),
        (["--info", "searchpath"], 0),
    ],
    ids=lambda value: "_".join(value) if isinstance(value, list) else "",
)
def test_questions_and_mistakes_are_answered_without_torch(
    arguments: list[str], code: int, tmp_path: Path
) -> None:
    read_nodes()  # fills the cache, which needs torch
    done = commands.run("sweep", *arguments, without=commands.SLOW, cwd=tmp_path)
    assert done.returncode == code
    if code:
        assert done.stdout == ""
        (line,) = done.stderr.splitlines()
        assert line.startswith("error: ")
        assert "did you mean " in line
    else:
        assert done.stdout
    assert not list(tmp_path.iterdir())


# Runs


def test_run_records_the_command_that_repeats_it(
    call: Callable[..., int], tiny_overrides: Callable[..., list[str]], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    overrides = tiny_overrides("box", folder, "data.settings.custom.max_iter=2")
    assert call("roi_heads=box", *overrides) == 0
    record = json.loads((folder / "result.json").read_text())
    assert record["status"] == "done"
    assert record["iterations"] == 2
    assert record["model_name"] == "test_efficientnet"
    repeated = [override for override in overrides if not override.startswith("train.output_dir=")]
    assert record["command"] == ["d2timm", "sweep", "roi_heads=box", *repeated]
    assert "AP" in record["metrics"]["bbox"]
    assert load(folder / "config.yaml").train.output_dir == str(folder)
    assert {file.name for file in tmp_path.iterdir()} == {"run"}


def test_dry_run_describes_the_detector_and_writes_nothing(
    call: Callable[..., int],
    tiny_overrides: Callable[..., list[str]],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    overrides = tiny_overrides("box", tmp_path / "run", "model.backbone.bottom_up.model_name=test_resnet")
    assert call("--dry-run", "roi_heads=box", *overrides) == 0
    output = capfd.readouterr().out
    assert output.startswith("test_resnet")
    assert "roi heads" in output
    assert not list(tmp_path.iterdir())


def test_mistake_in_the_data_writes_nothing(
    call: Callable[..., int],
    tiny_overrides: Callable[..., list[str]],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    overrides = tiny_overrides("mask", tmp_path / "run", "data.val_json=gone.json")
    assert call(*overrides) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("error: data.val_json=")
    assert line.endswith("gone.json: no such file")
    assert not list(tmp_path.iterdir())
