"""scripts/hydra_train.py: help at once, Hydra's own questions, and a real run."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import timm
import yaml
from helpers import commands

from d2timm import get_config
from d2timm.config.groups import read_nodes
from d2timm.config.lazy import load, to_plain
from d2timm.sweep.callback import SweepFolder
from d2timm.utils.files import resource_folder

SCRIPT = Path(__file__).parents[2] / "scripts" / "hydra_train.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return commands.load("hydra_train")


@pytest.fixture
def call(script: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[..., int]]:
    """Run the script in an empty folder; gives its exit code."""
    log = logging.getLogger()
    handlers, level = list(log.handlers), log.level
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(SweepFolder, "path", None)

    def run(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *arguments])
        return int(script.main())

    yield run
    log.handlers[:] = handlers
    log.setLevel(level)


# Help


@pytest.fixture(scope="module")
def help_text() -> str:
    done = commands.run("hydra_train", "--help")
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_help_tells_the_options_of_every_group(help_text: str) -> None:
    text = " ".join(help_text.split())  # long lists go over several lines
    for folder in (resource_folder("lazy_configs") / "common").iterdir():
        options = sorted(file.stem for file in folder.glob("*.py"))
        if options and folder.name != "backbone":
            assert f" {folder.name} {', '.join(options)} " in text


def test_help_is_a_page_and_names_no_thousand_models(help_text: str) -> None:
    assert len(help_text.splitlines()) < 60
    assert max(map(len, help_text.splitlines())) <= 115
    words = set(help_text.replace(",", " ").split())
    assert len(words & set(timm.list_models())) < 10


@pytest.mark.parametrize(
    "told", ["--resume", "--dry-run", "--num-gpus", "+sweep=", "small_backbones", "ray", "optuna"]
)
def test_help_tells_flags_and_sweeps(told: str, help_text: str) -> None:
    assert told in help_text


def test_help_waits_for_no_import() -> None:
    command = [sys.executable, "-X", "importtime", SCRIPT, "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "argparse" in imported
    assert not {"torch", "timm", "d2timm", "hydra", "omegaconf"} & imported


# What Hydra tells of a config


def test_config_that_is_printed_is_the_recipe(
    call: Callable[..., int], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert call("--cfg", "job", "roi_heads=box", "train.seed=3") == 0
    recipe: dict[str, Any] = to_plain(get_config("faster_rcnn_timm.py"))
    recipe["train"]["seed"] = 3
    assert yaml.safe_load(capfd.readouterr().out) == recipe
    assert not list(tmp_path.iterdir())


def test_search_path_is_told(call: Callable[..., int], capfd: pytest.CaptureFixture[str]) -> None:
    assert call("--info", "searchpath") == 0
    assert "conf" in capfd.readouterr().out


def test_shell_completes_names_of_models(
    call: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    read_nodes()
    monkeypatch.setenv("COMP_LINE", "python scripts/hydra_train.py backbone=xcit_sm")
    assert call("-sc", "query=bash") == 0
    told = capfd.readouterr().out.split()
    assert sorted(told) == sorted(f"backbone={name}" for name in timm.list_models("xcit_sm*"))


# A mistake, in a process of its own


def test_mistake_is_told_before_torch_is_imported(tmp_path: Path) -> None:
    read_nodes()  # into the cache
    command = [sys.executable, "-X", "importtime", SCRIPT, "backbone=xcit_smal_12_p8_224"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    told = [line for line in done.stderr.splitlines() if not line.startswith("import time:")]
    assert len(told) == 1
    assert told[0].startswith("error: backbone=xcit_smal_12_p8_224: did you mean xcit_small_12_p8_224 or ")
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert not {"torch", "timm", "detectron2"} & imported
    assert not list(tmp_path.iterdir())


# Runs


def test_run_leaves_a_folder_that_says_how_to_repeat_it(
    call: Callable[..., int], tiny_overrides: Callable[..., list[str]], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    overrides = tiny_overrides("box", folder, "data.settings.custom.max_iter=2")
    told = ["roi_heads=box", *overrides]
    assert call(*told) == 0
    record = json.loads((folder / "result.json").read_text())
    assert record["status"] == "done"
    assert record["iterations"] == 2
    assert record["model_name"] == "test_efficientnet"
    command = [override for override in told if not override.startswith("train.output_dir=")]
    assert record["command"] == ["python", "scripts/hydra_train.py", *command]
    assert "AP" in record["metrics"]["bbox"]
    assert load(folder / "config.yaml").train.output_dir == str(folder)
    assert {file.name for file in tmp_path.iterdir()} == {"run"}


def test_dry_run_describes_and_leaves_nothing(
    call: Callable[..., int],
    tiny_overrides: Callable[..., list[str]],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    overrides = tiny_overrides("box", tmp_path / "run", "model.backbone.bottom_up.model_name=test_resnet")
    assert call("--dry-run", "roi_heads=box", *overrides) == 0
    told = capfd.readouterr().out
    assert told.startswith("test_resnet, native size ")
    assert "roi heads" in told
    assert not list(tmp_path.iterdir())


def test_refused_run_leaves_nothing(
    call: Callable[..., int],
    tiny_overrides: Callable[..., list[str]],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    overrides = tiny_overrides("mask", tmp_path / "run", "data.val_json=gone.json")
    assert call(*overrides) == 2
    told = capfd.readouterr().err
    assert told == "error: data.val_json=gone.json: no such file\n"
    assert not list(tmp_path.iterdir())
