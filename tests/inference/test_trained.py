"""Detectors are opened from run folders and exported files, without their data."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import save_file

import d2timm
from d2timm import ConfigError
from d2timm.config import lazy as config
from d2timm.data.datasets.shapes import CLASSES
from d2timm.inference.trained import open_run


@pytest.fixture
def run_without_data(tiny_run: Path, tmp_path: Path) -> Path:
    """A copy of the tiny run whose data files do not exist."""
    folder = tmp_path / "without_data"
    shutil.copytree(tiny_run, folder)
    text = (folder / "config.yaml").read_text()
    data = config.load(folder / "config.yaml").data
    for key in ("train_json", "train_images", "val_json", "val_images"):
        text = text.replace(data[key], f"/gone/{key}")
    (folder / "config.yaml").write_text(text)
    return folder


def test_run_opens_without_its_data(run_without_data: Path) -> None:
    trained = open_run(run_without_data, device="cpu")
    assert trained.labels == {"classes": class_names(), "stuff": [], "keypoints": []}
    assert trained.tasks == ["bbox", "segm"]
    assert trained.metadata.thing_classes == class_names()
    assert not trained.model.training
    saved = torch.load(run_without_data / "model_final.pth", weights_only=True)["model"]
    state = trained.model.state_dict()
    assert state.keys() == saved.keys()
    assert all(torch.equal(state[name], saved[name]) for name in saved)


def class_names() -> list[str]:
    """Names of the classes, in the order of their category ids in the fixture ``small_coco``."""
    from conftest import CATEGORY_IDS

    return [name for _, name in sorted(zip(CATEGORY_IDS, CLASSES, strict=True))]


def test_weights_are_a_path_or_a_name_in_the_folder(run_without_data: Path, tmp_path: Path) -> None:
    folder = run_without_data
    assert open_run(folder, device="cpu").weights == folder / "model_final.pth"
    assert open_run(folder, "model_best.pth", "cpu").weights == folder / "model_best.pth"
    elsewhere = shutil.copy(folder / "model_final.pth", tmp_path / "x.pth")
    assert open_run(folder, elsewhere, "cpu").weights == elsewhere


def test_run_without_recorded_labels_reads_its_data(tiny_run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "old"
    shutil.copytree(tiny_run, folder)
    record = json.loads((folder / "result.json").read_text())
    del record["labels"]
    (folder / "result.json").write_text(json.dumps(record))
    assert open_run(folder, device="cpu").labels["classes"] == class_names()


def test_exported_weights_open(run_without_data: Path, tmp_path: Path) -> None:
    trained = open_run(run_without_data, device="cpu")
    file = tmp_path / "merged.safetensors"
    metadata = {"config": config.to_yaml(trained.cfg), "labels": json.dumps(trained.labels)}
    save_file(trained.model.state_dict(), file, metadata)
    again = open_run(file)
    assert again.labels == trained.labels
    assert all(
        torch.equal(again.model.state_dict()[k].cpu(), v) for k, v in trained.model.state_dict().items()
    )
    with pytest.raises(ConfigError, match=r"merged\.safetensors .*other\.pth"):
        open_run(file, "other.pth")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda folder: folder / "no", "no such run folder"),
        (lambda folder: (folder / "config.yaml").unlink(), r"no config\.yaml"),
        (lambda folder: (folder / "config.yaml").write_text("[1]"), r"config\.yaml"),
        (lambda folder: (folder / "last_checkpoint").unlink(), "no last_checkpoint"),
        (
            lambda folder: (folder / "model_final.pth").unlink(),
            r"model_final\.pth, which does not exist",
        ),
        (lambda folder: folder / "no.safetensors", "no such file"),
    ],
)
def test_damaged_run_is_an_error(run_without_data: Path, damage: Callable[[Path], Any], reason: str) -> None:
    other = damage(run_without_data)
    with pytest.raises(ConfigError, match=reason):
        open_run(other if isinstance(other, Path) else run_without_data, device="cpu")


@pytest.mark.parametrize("key", ["model", "model.backbone.bottom_up", "dataloader.test.mapper"])
@pytest.mark.parametrize("node", [{"x": 1}, {"_target_": "torch.nn.ReLU"}, {}, 3, None, "???", "${nope}"])
def test_part_of_another_kind_is_an_error_that_names_it(run_without_data: Path, key: str, node: Any) -> None:
    cfg = config.load(run_without_data / "config.yaml")
    OmegaConf.update(cfg, key, node, merge=False)
    config.save(cfg, run_without_data / "config.yaml")
    with pytest.raises(ConfigError, match=key.partition(".")[0]):
        d2timm.load(run_without_data, device="cpu")


@pytest.mark.parametrize("key", ["data.name", "data.settings", "data.tasks", "model.roi_heads"])
@pytest.mark.parametrize("value", ["???", "${nope}"])
def test_value_that_is_missing_is_an_error(run_without_data: Path, key: str, value: Any) -> None:
    cfg = config.load(run_without_data / "config.yaml")
    OmegaConf.update(cfg, key, value, merge=False)
    config.save(cfg, run_without_data / "config.yaml")
    with pytest.raises(ConfigError) as caught:
        d2timm.load(run_without_data, device="cpu")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("labels", ["", "[" * 10**5, "[1]", "9" * 5000])
def test_exported_file_with_damaged_labels_is_an_error(
    labels: str, run_without_data: Path, tmp_path: Path
) -> None:
    trained = open_run(run_without_data, device="cpu")
    metadata = {"config": config.to_yaml(trained.cfg), "labels": labels}
    save_file(trained.model.state_dict(), tmp_path / "x.safetensors", metadata)
    with pytest.raises(ConfigError, match=r"x\.safetensors: its .*labels"):
        open_run(tmp_path / "x.safetensors")


def test_exported_file_without_a_config_is_an_error(tmp_path: Path) -> None:
    save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors")
    with pytest.raises(ConfigError, match="d2timm export"):
        open_run(tmp_path / "x.safetensors")
    (tmp_path / "y.safetensors").write_text("text")
    with pytest.raises(ConfigError, match=r"y\.safetensors"):
        open_run(tmp_path / "y.safetensors")


def test_unknown_weights_and_devices_are_an_error(run_without_data: Path) -> None:
    with pytest.raises(ConfigError, match=r"no\.pth: no such file; .* has model_best\.pth"):
        open_run(run_without_data, "no.pth", "cpu")
    with pytest.raises(ConfigError, match="device=nothing"):
        open_run(run_without_data, device="nothing")
