"""``d2timm train``: which config it loads, and the command that a run records."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from d2timm.cli import main
from d2timm.config.lazy import load
from d2timm.runs.record import Record

RECIPE = "faster_rcnn_timm.py"


@pytest.mark.parametrize("prefix", ["", "lazy_configs/"])
def test_recipe_is_found_from_any_folder(
    prefix: str,
    tiny_overrides: Callable[..., list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    overrides = tiny_overrides(RECIPE, tmp_path / "run", "model.backbone.bottom_up.model_name=test_resnet")
    assert main(["train", "--config-file", f"{prefix}{RECIPE}", "--dry-run", *overrides]) == 0
    assert capsys.readouterr().out.startswith("test_resnet")
    assert not list(tmp_path.iterdir())


def test_file_of_the_user_is_preferred_to_a_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(RECIPE).write_text("x = }")
    assert main(["train", "--config-file", RECIPE]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: --config-file {RECIPE}: ")


def test_missing_config_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--config-file", "missing.py"]) == 2
    assert capsys.readouterr() == ("", "error: --config-file missing.py: no such file\n")


def test_config_is_required(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        main(["train", "train.seed=3"])
    assert error.value.code == 2
    assert "--config-file" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["train.max_iter=2", "--dry-run", "train.output_dir=OUT", "--config-file", RECIPE],
        ["--config-file", RECIPE, "--dry-run", "--", "train.max_iter=2", "train.output_dir=OUT"],
        ["~train.tta", "--dry-run", "train.max_iter=2", f"--config-file={RECIPE}", "train.output_dir=OUT"],
    ],
)
def test_flags_between_overrides(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", *arguments]) == 0
    assert "2 iterations of 2 images on cpu, into OUT" in capsys.readouterr().out


def test_paths_as_typed_and_the_command_that_repeats_the_run(
    tiny_overrides: Callable[..., list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    overrides = dict(text.split("=", 1) for text in tiny_overrides(RECIPE, tmp_path, "train.max_iter=1"))
    place = tmp_path / "Photos (1), #é=&"
    place.mkdir()
    for split, number in (("train", "2024"), ("val", "1e3")):
        Path(number).symlink_to(overrides[f"data.{split}_images"])
        overrides[f"data.{split}_images"] = number
        (place / f"it's {split}.json").symlink_to(overrides[f"data.{split}_json"])
        overrides[f"data.{split}_json"] = f"~/{place.name}/it's {split}.json"
    overrides["train.output_dir"] = 'wh?t "is" $this'
    typed = [f"{key}={value}" for key, value in overrides.items()]
    assert main(["train", "--config-file", RECIPE, *typed]) == 0
    folder = tmp_path / overrides["train.output_dir"]
    saved = load(folder / "config.yaml")
    assert saved.data.train_images == "2024"
    assert saved.data.val_json == str(place / "it's val.json")
    first = Record.read(folder)
    assert first
    assert first.status == "done"
    assert main([*first.command[1:], "--resume", "train.max_iter=2"]) == 0
    assert Record.read(folder).iterations == 2


def test_overrides_and_flags_in_any_order_and_the_recorded_command(
    tiny_overrides: Callable[..., list[str]], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    first, *others = tiny_overrides(RECIPE, folder, "train.max_iter=1", "train.eval_period=0")
    assert main(["train", first, "--config-file", RECIPE, "--num-gpus", "1", *others]) == 0
    record = json.loads((folder / "result.json").read_text())
    assert (record["status"], record["iterations"]) == ("done", 1)
    assert record["command"] == ["d2timm", "train", "--config-file", RECIPE, first, *others]
