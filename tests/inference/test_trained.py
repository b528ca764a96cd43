"""Detectors of run folders, with and without what they were trained on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from d2timm import ConfigError
from d2timm.config import lazy as config
from d2timm.data.datasets.shapes import CLASSES
from d2timm.inference.trained import open_run


@pytest.fixture
def alone(tiny_run: Path, tmp_path: Path) -> Path:
    """The run on a machine without its data."""
    folder = tmp_path / "alone"
    shutil.copytree(tiny_run, folder)
    text = (folder / "config.yaml").read_text()
    data = config.load(folder / "config.yaml").data
    for key in ("train_json", "train_images", "val_json", "val_images"):
        text = text.replace(data[key], f"/gone/{key}")
    (folder / "config.yaml").write_text(text)
    return folder


def test_run_is_opened_without_its_data(alone: Path) -> None:
    trained = open_run(alone, device="cpu")
    assert trained.labels == {"classes": sorted_names(), "stuff": [], "keypoints": []}
    assert trained.tasks == ["bbox", "segm"]
    assert trained.metadata.thing_classes == sorted_names()
    assert not trained.model.training
    saved = torch.load(alone / "model_final.pth", weights_only=True)["model"]
    state = trained.model.state_dict()
    assert state.keys() == saved.keys()
    assert all(torch.equal(state[name], saved[name]) for name in saved)


def sorted_names() -> list[str]:
    """Names of the classes in the order of the ids that the fixture gives them."""
    from conftest import CATEGORY_IDS

    return [name for _, name in sorted(zip(CATEGORY_IDS, CLASSES, strict=True))]


def test_weights_are_named_by_path_or_in_the_folder(alone: Path, tmp_path: Path) -> None:
    assert open_run(alone, device="cpu").weights == alone / "model_final.pth"
    assert open_run(alone, "model_0000001.pth", "cpu").weights == alone / "model_0000001.pth"
    elsewhere = shutil.copy(alone / "model_final.pth", tmp_path / "x.pth")
    assert open_run(alone, elsewhere, "cpu").weights == elsewhere


def test_run_without_recorded_names_asks_its_data(tiny_run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "old"
    shutil.copytree(tiny_run, folder)
    told = json.loads((folder / "result.json").read_text())
    del told["labels"]
    (folder / "result.json").write_text(json.dumps(told))
    assert open_run(folder, device="cpu").labels["classes"] == sorted_names()


def test_merged_weights_are_opened(alone: Path, tmp_path: Path) -> None:
    trained = open_run(alone, device="cpu")
    file = tmp_path / "merged.safetensors"
    metadata = {"config": config.to_yaml(trained.cfg), "labels": json.dumps(trained.labels)}
    save_file(trained.model.state_dict(), file, metadata)
    again = open_run(file)
    assert again.labels == trained.labels
    assert all(
        torch.equal(again.model.state_dict()[k].cpu(), v) for k, v in trained.model.state_dict().items()
    )
    with pytest.raises(ConfigError, match="has weights of its own"):
        open_run(file, "other.pth")


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda folder: folder / "no", "no such folder of a run"),
        (lambda folder: (folder / "config.yaml").unlink(), r"it has no config\.yaml"),
        (lambda folder: (folder / "config.yaml").write_text("[1]"), "it holds no config"),
        (lambda folder: (folder / "last_checkpoint").unlink(), "has no checkpoint yet"),
        (lambda folder: (folder / "model_final.pth").unlink(), r"model_final\.pth: no such file"),
        (lambda folder: folder / "no.safetensors", "no such file"),
    ],
)
def test_what_is_no_run_is_told(alone: Path, spoil: Callable[[Path], Any], reason: str) -> None:
    changed = spoil(alone)
    with pytest.raises(ConfigError, match=reason):
        open_run(changed if isinstance(changed, Path) else alone, device="cpu")


def test_file_without_a_config_is_told(tmp_path: Path) -> None:
    save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors")
    with pytest.raises(ConfigError, match="has weights and no config"):
        open_run(tmp_path / "x.safetensors")
    (tmp_path / "y.safetensors").write_text("text")
    with pytest.raises(ConfigError, match="not a file of weights"):
        open_run(tmp_path / "y.safetensors")


def test_wrong_weights_and_devices_are_told(alone: Path) -> None:
    with pytest.raises(ConfigError, match=r"no\.pth: no such file; .* has model_0000001\.pth"):
        open_run(alone, "no.pth", "cpu")
    with pytest.raises(ConfigError, match="device=nothing"):
        open_run(alone, device="nothing")
