"""``d2timm train``: which config it loads, and the command that a run records."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from d2timm.cli import main

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


def test_overrides_and_flags_in_any_order_and_the_recorded_command(
    tiny_overrides: Callable[..., list[str]], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    first, *others = tiny_overrides(RECIPE, folder, "train.max_iter=1", "train.eval_period=0")
    assert main(["train", first, "--config-file", RECIPE, "--num-gpus", "1", *others]) == 0
    record = json.loads((folder / "result.json").read_text())
    assert (record["status"], record["iterations"]) == ("done", 1)
    assert record["command"] == ["d2timm", "train", "--config-file", RECIPE, first, *others]
