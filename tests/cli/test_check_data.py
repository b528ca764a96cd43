"""``d2timm check-data``: its table, ``check.json`` and exit code."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from d2timm.cli import main
from d2timm.data import catalog


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, which is empty."""
    monkeypatch.chdir(tmp_path)
    catalog.forget()
    return tmp_path


def test_dataset_that_can_be_used(small_coco: Any, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check-data", *small_coco.overrides]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[-1] == "All samples are listed in check.json"
    assert "Nothing would stop training." in out
    assert err == ""
    content = json.loads((folder / "check.json").read_text())
    assert (content["dataset"], content["stops"]) == ("custom", [])
    assert content["splits"]["train"]["images"] == 6


def test_dataset_that_would_stop_training(
    small_coco: Any, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    coco = json.loads(small_coco.val_json.read_text())
    (folder / "val.json").write_text(json.dumps({**coco, "annotations": []}))
    overrides = [*small_coco.overrides, f"data.val_json={folder / 'val.json'}"]
    assert main(["check-data", *overrides, "--output", "found.json"]) == 1
    assert "error: data.val_json=" in capsys.readouterr().out
    (stop,) = json.loads((folder / "found.json").read_text())["stops"]
    assert "no usable objects" in stop
    assert not (folder / "check.json").exists()


def test_config_decides_about_masks(
    small_coco: Any, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    coco = json.loads(small_coco.train_json.read_text())
    for annotation in coco["annotations"]:
        del annotation["segmentation"]
    (folder / "train.json").write_text(json.dumps(coco))
    overrides = [*small_coco.overrides, f"data.train_json={folder / 'train.json'}", "--no-duplicates"]
    assert main(["check-data", *overrides]) == 0
    assert main(["check-data", "--config-file", "mask_rcnn_timm.py", *overrides]) == 1
    assert "no usable segmentation" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (
            ["data.train_json=missing.json", "data.train_images=."],
            "data.train_json=.*missing.json: no such file",
        ),
        (["data.name=custom"], "data.name=custom has no train split"),
        (["data.root=missing"], "data.root=.*missing: no such file or folder"),
        (["data.root=."], "data.root=.* has annotations in no known format"),
        (["data.name=shapes"], "data.name=shapes: only a user's own data"),
        (["data.rot=."], "data.rot"),
        (["--config-file", "missing.py"], "--config-file missing.py: no such file"),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], error: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check-data", *arguments]) == 2
    out, err = capsys.readouterr()
    (line,) = err.splitlines()
    assert line.startswith("error: ")
    assert re.search(error, line)
    assert out == ""


def test_output_that_cannot_be_written(
    small_coco: Any, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = folder / "missing" / "check.json"
    assert main(["check-data", *small_coco.overrides, "--output", str(output)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"error: --output {output}: No such file or directory"
