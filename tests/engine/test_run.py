"""The command line: every mistake is one line before anything is made; a fallback is told."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from helpers import commands

from d2timm.runs.record import Record, recorded

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "lazyconfig_train.py"
MASK = ROOT / "lazy_configs" / "mask_rcnn_timm.py"
BACKBONE = "model.backbone.bottom_up"

no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")


@pytest.fixture
def script() -> ModuleType:
    """scripts/lazyconfig_train.py as a module."""
    return commands.load("lazyconfig_train")


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The arguments of every launch, which makes nothing here."""
    calls: list[Any] = []
    monkeypatch.setattr(
        "d2timm.engine.run.launch", lambda *args: calls.append(args) or print("-- training --")
    )
    return calls


@pytest.fixture
def call(script: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., int]:
    """Run the script in an empty folder; gives its exit code."""

    def run(*arguments: str) -> int:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *arguments])
        return int(script.main())

    return run


@pytest.fixture
def few_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The embedded set with a handful of pictures."""
    monkeypatch.setattr("d2timm.data.datasets.shapes.COUNTS", {"train": 3, "val": 2})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train.max_itr=10"], "train.max_itr=10: train has no key 'max_itr'; did you mean max_iter?"),
        (["train.max_iter=ten"], "train.max_iter is a number"),
        (["train.max_iter"], "an override is not key=value"),
        ([f"{BACKBONE}.model_nam=resnet50"], "has no key 'model_nam'; did you mean model_name"),
        ([f"{BACKBONE}.model_name=xcit_smal_12_p8_224"], "xcit_small_12_p8_224"),
        ([f"{BACKBONE}.model_name=resnet50,resnet18"], "a sweep, which scripts/hydra_train.py -m runs"),
        ([f"{BACKBONE}.out_indices=[0,1,2,9]"], "9 is out of range, the model has 5 features: 0 to 4"),
        ([f"{BACKBONE}.remaps=[a,b,b,c]"], "two outputs have the same name"),
        ([f"{BACKBONE}.remaps=[a,b,c]"], "remaps has 3, strides has 4"),
        ([f"{BACKBONE}.checkpoint_path=gone.pth"], "checkpoint_path=gone.pth: no such file"),
        (["data.train_json=gone.json"], "data.train_json=gone.json: no such file"),
        (["data.val_images=gone"], "data.val_images=gone: no such folder"),
        (["data.name=coco_2017"], "are two sets: leave one out"),
        (["data.name=coco"], "data.name='coco': did you mean coco_2017"),
        (["--eval-only"], "has no checkpoint; give train.output_dir= or train.init_checkpoint="),
        (["--eval-only", "train.init_checkpoint=gone.pth"], "gone.pth: no such file"),
        (["train.init_checkpoint=gone.pth"], "gone.pth: no such file"),
        (["--num-machines=3"], "total_batch_size=2 cannot be divided among 3 processes"),
        (["--num-gpus=0"], "--num-gpus 0"),
        pytest.param(["train.device=cuda"], "this machine has no GPU; use train.device=cpu", marks=no_gpu),
        pytest.param(["train.amp.enabled=True"], "train.amp.enabled=True needs a GPU", marks=no_gpu),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else "",
)
def test_mistake_is_one_line_before_anything_is_made(
    arguments: list[str],
    message: str,
    call: Callable[..., int],
    launched: list[Any],
    tiny_overrides: Callable[..., list[str]],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    flags = [a for a in arguments if a.startswith("--")]
    overrides = [a for a in arguments if a not in flags]
    code = call("--config-file", str(MASK), *flags, *tiny_overrides("mask", tmp_path / "run", *overrides))
    told = capfd.readouterr().err
    assert message in told
    assert told.startswith("error: ")
    assert told.count("\n") == 1
    assert code == 2
    assert not launched
    assert not list(tmp_path.iterdir())


def test_missing_config_file(call: Callable[..., int], capfd: pytest.CaptureFixture[str]) -> None:
    assert call("--config-file", "mask_rcnn_tim.py") == 2
    assert capfd.readouterr().err == "error: --config-file mask_rcnn_tim.py: no such file\n"


def test_mistake_in_a_process_of_its_own(tmp_path: Path) -> None:
    override = f"{BACKBONE}.model_name=xcit_smal_12_p8_224"
    done = subprocess.run(
        [sys.executable, SCRIPT, "--config-file", MASK, override],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: model_name='xcit_smal_12_p8_224' is not in timm")
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
    assert not list(tmp_path.iterdir())


def test_help_answers_without_heavy_imports() -> None:
    code = (
        "import runpy, sys\n"
        f"sys.argv = [{str(SCRIPT)!r}, '--help']\n"
        "try:\n"
        "    runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "finally:\n"
        "    print([m for m in ('torch', 'timm', 'detectron2', 'hydra') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stdout.endswith("\n[]\n")
    for option in ("--config-file", "--resume", "--eval-only", "--dry-run", "--num-gpus", "--dist-url"):
        assert option in done.stdout


def test_options_are_those_of_detectron2(script: ModuleType) -> None:
    options = script.parse(["--config-file", "a.py", "--num-gpus", "2", "--resume", "b=1", "+c=2", "~d"])
    assert vars(options) == {
        "config_file": "a.py",
        "resume": True,
        "eval_only": False,
        "dry_run": False,
        "num_gpus": 2,
        "num_machines": 1,
        "machine_rank": 0,
        "dist_url": "auto",
        "overrides": ["b=1", "+c=2", "~d"],
    }


def test_dry_run_needs_the_classes(
    call: Callable[..., int],
    tiny_overrides: Callable[..., list[str]],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    gone = ["data.train_json=gone.json", "data.val_json=gone.json"]
    assert call("--config-file", str(MASK), "--dry-run", *tiny_overrides("mask", tmp_path, *gone)) == 2
    assert re.fullmatch(r"error: data\.\w+_json=gone\.json: no such file\n", capfd.readouterr().err)


def test_right_command_launches_once(
    call: Callable[..., int],
    launched: list[Any],
    tiny_overrides: Callable[..., list[str]],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    arguments = tiny_overrides("mask", tmp_path / "run", "data.settings.custom.max_iter=7")
    assert call("--config-file", str(MASK), "--resume", *arguments) == 0
    ((_, options, cfg, eval_only, resume, record),) = launched
    assert isinstance(options, Namespace)
    told = ["python", "scripts/lazyconfig_train.py", "--config-file", str(MASK), *arguments]
    assert record.command == told, "what gives this run again"
    assert record.multiply_adds > 0
    assert (cfg.data.name, cfg.train.max_iter) == ("custom", 7)
    assert (eval_only, resume) == (False, True)
    assert capfd.readouterr().out == "-- training --\n", "data were named: no banner"


@pytest.mark.parametrize("flags", [[], ["--resume"], ["--eval-only"]])
def test_folder_in_which_another_trains_is_refused_in_a_line(
    flags: list[str],
    call: Callable[..., int],
    launched: list[Any],
    tiny_overrides: Callable[..., list[str]],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    with recorded(Record(iterations=3), folder):
        files = {file.name: file.read_bytes() for file in folder.iterdir()}
        assert call("--config-file", str(MASK), *flags, *tiny_overrides("mask", folder)) == 2
        told = capfd.readouterr().err
        assert told == f"error: train.output_dir={folder}: another process trains there\n"
        assert {file.name: file.read_bytes() for file in folder.iterdir()} == files
    assert not launched
    assert not (tmp_path / "run.1").exists()
    assert call("--config-file", str(MASK), *tiny_overrides("mask", folder)) == 0
    assert len(launched) == 1


def test_fallback_to_the_embedded_set_is_told_before_and_after(
    call: Callable[..., int], launched: list[Any], few_shapes: None, capfd: pytest.CaptureFixture[str]
) -> None:
    assert call("--config-file", str(MASK), f"{BACKBONE}.model_name=test_efficientnet") == 0
    assert len(launched) == 1
    before, after = capfd.readouterr().out.split("-- training --\n")
    assert before == after
    for text in (
        "COCO 2017 was not found",
        "embedded data set",
        "short schedule (150 iterations)",
        "data.train_json=",
    ):
        assert text in before
    lines = before.splitlines()
    assert len(set(map(len, lines))) == 1, "a box"


def test_other_processes_tell_no_banner(
    call: Callable[..., int],
    launched: list[Any],
    few_shapes: None,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert call("--config-file", str(MASK), f"{BACKBONE}.model_name=test_efficientnet") == 0
    assert capfd.readouterr().out == "-- training --\n"


def test_set_that_is_named_is_no_fallback(
    call: Callable[..., int], launched: list[Any], few_shapes: None, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = [f"{BACKBONE}.model_name=test_efficientnet", "data.name=shapes"]
    assert call("--config-file", str(MASK), *arguments) == 0
    assert capfd.readouterr().out == "-- training --\n"


def test_dry_run_makes_nothing(
    call: Callable[..., int],
    launched: list[Any],
    tiny_overrides: Callable[..., list[str]],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    cache = sorted(Path(os.environ["D2TIMM_CACHE"]).iterdir())
    overrides = [f"{BACKBONE}.model_name=test_efficientnet", f"{BACKBONE}.pretrained=True"]
    assert call("--config-file", str(MASK), "--dry-run", *overrides) == 0
    own = tiny_overrides("mask", tmp_path / "run", "data.val_json=gone.json")
    assert call("--config-file", str(MASK), "--dry-run", *own) == 0
    told = capfd.readouterr()
    assert told.out.count("GFLOPs") == 2
    assert "not usable: data.val_json=gone.json: no such file" in told.out
    assert told.err == ""
    assert not launched
    assert not list(tmp_path.iterdir())
    assert sorted(Path(os.environ["D2TIMM_CACHE"]).iterdir()) == cache
