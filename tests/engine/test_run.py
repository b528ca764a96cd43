"""``d2timm train``: mistakes are one line before any file is created, and a fallback is announced."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import re
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from d2timm.cli import main
from d2timm.cli import train as train_command
from d2timm.runs.record import Record, recorded

MASK = "mask_rcnn_timm.py"
BACKBONE = "model.backbone.bottom_up"
LAUNCHED = "-- training --\n"

no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The arguments of every launch, which starts nothing here."""
    calls: list[Any] = []
    monkeypatch.setattr(
        "d2timm.engine.launch.launch", lambda *args: calls.append(args) or print(LAUNCHED, end="")
    )
    return calls


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., int]:
    """Run ``d2timm train --config-file FILE ...`` in an empty folder; returns the exit code."""

    def run(config_file: str, *arguments: str) -> int:
        monkeypatch.chdir(tmp_path)
        return main(["train", "--config-file", config_file, *arguments])

    return run


@pytest.fixture
def few_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The embedded dataset with a handful of pictures."""
    monkeypatch.setattr("d2timm.data.datasets.shapes.COUNTS", {"train": 3, "val": 2})


@pytest.mark.parametrize(
    ("arguments", "facts"),
    [
        (["train.max_itr=10"], ["train.max_itr=10", "did you mean max_iter"]),
        (["train.max_iter=ten"], ["train.max_iter=ten", "number"]),
        (["train.max_iter"], ["key=value"]),
        ([f"{BACKBONE}.model_nam=resnet50"], ["'model_nam'", "did you mean model_name"]),
        ([f"{BACKBONE}.model_name=xcit_smal_12_p8_224"], ["xcit_small_12_p8_224"]),
        ([f"{BACKBONE}.model_name=resnet50,resnet18"], ["d2timm sweep -m"]),
        ([f"{BACKBONE}.out_indices=[0,1,2,9]"], ["9", "5 features", "0 to 4"]),
        ([f"{BACKBONE}.remaps=[a,b,b,c]"], ["remaps=['a', 'b', 'b', 'c']"]),
        ([f"{BACKBONE}.remaps=[a,b,c]"], ["remaps has 3, strides has 4"]),
        ([f"{BACKBONE}.checkpoint_path=gone.pth"], ["checkpoint_path=gone.pth", "no such file"]),
        (["data.train_json=gone.json"], ["data.train_json=gone.json", "no such file"]),
        (["data.val_images=gone"], ["data.val_images=gone", "no such folder"]),
        (["data.name=coco_2017"], ["coco_2017", "data.train_json"]),
        (["data.name=coco"], ["coco", "did you mean coco_2017"]),
        (["--eval-only"], ["--eval-only", "train.output_dir=", "train.init_checkpoint="]),
        (["--eval-only", "train.init_checkpoint=gone.pth"], ["gone.pth", "no such file"]),
        (["train.init_checkpoint=gone.pth"], ["train.init_checkpoint=gone.pth", "no such file"]),
        (["--num-machines=3"], ["total_batch_size=2", "3 processes"]),
        (["--num-gpus=0"], ["--num-gpus 0"]),
        pytest.param(["train.device=cuda"], ["train.device=cuda", "train.device=cpu"], marks=no_gpu),
        pytest.param(
            ["train.amp.enabled=True"], ["train.amp.enabled=True", "train.amp.precision=bf16"], marks=no_gpu
        ),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else "",
)
def test_mistake_is_one_line_before_any_file_is_created(
    arguments: list[str],
    facts: list[str],
    call: Callable[..., int],
    launched: list[Any],
    tiny_overrides: Callable[..., list[str]],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    flags = [a for a in arguments if a.startswith("--")]
    overrides = [a for a in arguments if a not in flags]
    code = call(MASK, *flags, *tiny_overrides("mask", tmp_path / "run", *overrides))
    error = capfd.readouterr().err
    for fact in facts:
        assert fact in error
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert code == 2
    assert not launched
    assert not list(tmp_path.iterdir())


def test_missing_config_file(call: Callable[..., int], capfd: pytest.CaptureFixture[str]) -> None:
    assert call("mask_rcnn_tim.py") == 2
    error = capfd.readouterr().err
    assert error.startswith("error: --config-file mask_rcnn_tim.py")
    assert error.count("\n") == 1


def test_mistake_in_a_new_process(tmp_path: Path) -> None:
    override = f"{BACKBONE}.model_name=xcit_smal_12_p8_224"
    done = subprocess.run(
        [sys.executable, "-m", "d2timm", "train", "--config-file", MASK, override],
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
        "import sys\n"
        "from d2timm.cli import main\n"
        "try:\n"
        "    main(['train', '--help'])\n"
        "finally:\n"
        "    print([m for m in ('torch', 'timm', 'detectron2', 'hydra') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stdout.endswith("\n[]\n")
    for option in ("--config-file", "--resume", "--eval-only", "--dry-run", "--num-gpus", "--dist-url"):
        assert option in done.stdout


def test_options_are_those_of_detectron2() -> None:
    parser = argparse.ArgumentParser()
    train_command.add_arguments(parser)
    options = parser.parse_intermixed_args(
        ["--config-file", "a.py", "--num-gpus", "2", "--resume", "b=1", "+c=2", "~d"]
    )
    assert vars(options) == {
        "config_file": "a.py",
        "trust": None,
        "resume": True,
        "eval_only": False,
        "dry_run": False,
        "num_gpus": 2,
        "num_machines": 1,
        "machine_rank": 0,
        "dist_url": "auto",
        "overrides": ["b=1", "+c=2", "~d"],
    }


def test_dry_run_needs_the_classes_of_the_dataset(
    call: Callable[..., int],
    tiny_overrides: Callable[..., list[str]],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    gone = ["data.train_json=gone.json", "data.val_json=gone.json"]
    assert call(MASK, "--dry-run", *tiny_overrides("mask", tmp_path, *gone)) == 2
    assert re.fullmatch(r"error: data\.\w+_json=gone\.json: no such file\n", capfd.readouterr().err)


def test_valid_command_launches_once(
    call: Callable[..., int],
    launched: list[Any],
    tiny_overrides: Callable[..., list[str]],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    arguments = tiny_overrides("mask", tmp_path / "run", "data.settings.custom.max_iter=7")
    assert call(MASK, "--resume", *arguments) == 0
    ((_, options, cfg, eval_only, resume, record),) = launched
    assert isinstance(options, Namespace)
    command = ["d2timm", "train", "--config-file", MASK, *arguments]
    assert record.command == command, "it repeats this run"
    assert record.multiply_adds > 0
    assert (cfg.data.name, cfg.train.max_iter) == ("custom", 7)
    assert (eval_only, resume) == (False, True)
    assert capfd.readouterr().out == LAUNCHED, "no banner, because the user named a dataset"


@contextmanager
def trained_elsewhere(folder: Path) -> Iterator[None]:
    """Another process trains in a folder during a block."""
    context = multiprocessing.get_context("fork")
    trains, ends = context.Event(), context.Event()

    def train() -> None:
        with recorded(Record(iterations=3), folder):
            trains.set()
            ends.wait(60)

    process = context.Process(target=train)
    process.start()
    assert trains.wait(60)
    try:
        yield
    finally:
        ends.set()
        process.join()


@pytest.mark.parametrize("flags", [[], ["--resume"], ["--eval-only"]])
def test_folder_of_a_running_run_is_refused(
    flags: list[str],
    call: Callable[..., int],
    launched: list[Any],
    tiny_overrides: Callable[..., list[str]],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    with trained_elsewhere(folder):
        files = {file.name: file.read_bytes() for file in folder.iterdir()}
        assert call(MASK, *flags, *tiny_overrides("mask", folder)) == 2
        error = capfd.readouterr().err
        assert error.startswith(f"error: train.output_dir={folder}: another process")
        assert error.count("\n") == 1
        assert {file.name: file.read_bytes() for file in folder.iterdir()} == files
    assert not launched
    assert not (tmp_path / "run~1").exists()
    assert call(MASK, *tiny_overrides("mask", folder)) == 0
    assert len(launched) == 1


def test_fallback_to_the_embedded_dataset_is_announced_before_and_after(
    call: Callable[..., int], launched: list[Any], few_shapes: None, capfd: pytest.CaptureFixture[str]
) -> None:
    assert call(MASK, f"{BACKBONE}.model_name=test_efficientnet") == 0
    assert len(launched) == 1
    before, after = capfd.readouterr().out.split(LAUNCHED)
    assert before == after
    for fact in (
        "COCO 2017",
        "embedded dataset",
        "150 iterations",
        "data.train_json=",
        "data.name=coco_2017",
    ):
        assert fact in before
    assert len(set(map(len, before.splitlines()))) == 1, "all lines of the box have the same width"


def test_other_processes_print_no_banner(
    call: Callable[..., int],
    launched: list[Any],
    few_shapes: None,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert call(MASK, f"{BACKBONE}.model_name=test_efficientnet") == 0
    assert capfd.readouterr().out == LAUNCHED


def test_embedded_dataset_by_choice_is_not_a_fallback(
    call: Callable[..., int], launched: list[Any], few_shapes: None, capfd: pytest.CaptureFixture[str]
) -> None:
    assert call(MASK, f"{BACKBONE}.model_name=test_efficientnet", "data.name=shapes") == 0
    assert capfd.readouterr().out == LAUNCHED


def test_dry_run_creates_no_files(
    call: Callable[..., int],
    launched: list[Any],
    tiny_overrides: Callable[..., list[str]],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    cache = sorted(Path(os.environ["D2TIMM_CACHE"]).iterdir())
    overrides = [f"{BACKBONE}.model_name=test_efficientnet", f"{BACKBONE}.pretrained=True"]
    assert call(MASK, "--dry-run", *overrides) == 0
    custom = tiny_overrides("mask", tmp_path / "run", "data.val_json=gone.json")
    assert call(MASK, "--dry-run", *custom) == 0
    printed = capfd.readouterr()
    assert printed.out.count("GFLOPs") == 2
    assert "not usable: data.val_json=gone.json: no such file" in printed.out
    assert printed.err == ""
    assert not launched
    assert not list(tmp_path.iterdir())
    assert sorted(Path(os.environ["D2TIMM_CACHE"]).iterdir()) == cache
