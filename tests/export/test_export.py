"""Exported files: what they compute, what they say of themselves, and what is not exported."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.commands import load
from helpers.exports import picture, untrained
from safetensors import safe_open

from d2timm import ConfigError
from d2timm.config.lazy import lazy as config
from d2timm.export.export import export as write
from d2timm.export.export import export_run
from d2timm.export.formats import open_program
from d2timm.export.verify import compare, find_objects
from d2timm.inference.trained import Trained, open_run

SIZES = [(64, 64), (130, 70), (40, 200)]
NAMES = ("boxes", "classes", "scores", "masks")


@pytest.fixture(scope="module")
def trained() -> Trained:
    return untrained("rcnn", "fpn", "mask", "model.backbone.in_features=[res4,res5]")


@pytest.fixture(scope="module")
def onnx_file(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Mask R-CNN as ONNX, for images of any size."""
    file = tmp_path_factory.mktemp("onnx") / "detector.onnx"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(write, "open_run", lambda *_: trained)
        patch.setattr(write, "NOISE", SIZES[:1])
        lines = export_run("run", file, score_threshold=0.2)
    assert len(lines) == 1
    assert lines[0].startswith("64x64: ")
    return file


def test_onnx_finds_what_the_detector_finds(trained: Trained, onnx_file: Path) -> None:
    file = open_program(onnx_file, ".onnx")
    counts = []
    for size in SIZES:
        image = picture(*size)
        expected = find_objects(trained, image, 0.2)
        outputs = [x.numpy() for x in file(torch.from_numpy(image))]
        difference = compare(expected, dict(zip(NAMES, outputs, strict=True)))
        assert difference.unmatched == 0
        assert difference.boxes < 0.01
        assert difference.scores < 1e-4
        assert difference.pixels <= 1e-3 * difference.area
        counts.append(difference.found)
    assert max(counts) > 2


def test_onnx_says_what_it_is(trained: Trained, onnx_file: Path) -> None:
    session, classes = load("run_onnx").open_model(onnx_file)
    assert classes == trained.labels["classes"]
    told = session.get_modelmeta().custom_metadata_map
    assert config.parse(told["config"], "x").model.roi_heads.mask_in_features
    assert json.loads(told["labels"])["classes"] == classes
    assert float(told["score_threshold"]) == 0.2
    assert [output.name for output in session.get_outputs()] == list(NAMES)


def test_nothing_found_in_onnx(onnx_file: Path, trained: Trained) -> None:
    file = open_program(onnx_file, ".onnx")
    image = np.zeros((70, 60, 3), np.uint8)
    expected = find_objects(trained, image, 0.2)
    outputs = dict(zip(NAMES, (x.numpy() for x in file(torch.from_numpy(image))), strict=True))
    assert compare(expected, outputs).unmatched == 0
    assert outputs["masks"].shape == (len(expected["boxes"]), 70, 60)


def test_torch_export_of_a_dense_detector(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dense = untrained("retinanet", "none", "none")
    monkeypatch.setattr(write, "open_run", lambda *_: dense)
    file = tmp_path / "detector.pt2"
    export_run("run", file, score_threshold=0.01)
    extra = {"classes": "", "config": ""}
    with file.open("rb") as opened:
        torch.export.load(opened, extra_files=extra)
    assert json.loads(extra["classes"]) == dense.labels["classes"]
    program = open_program(file, ".pt2")
    found = 0
    for size in SIZES:
        image = picture(*size)
        outputs = [x.numpy() for x in program(torch.from_numpy(image))]
        difference = compare(find_objects(dense, image, 0.01), dict(zip(NAMES, outputs, strict=False)))
        assert (difference.unmatched, difference.boxes, difference.scores) == (0, 0, 0)
        found += difference.found
    assert found > 2
    assert len(program(torch.zeros(50, 40, 3, dtype=torch.uint8))) == 3


def test_one_size_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write, "open_run", lambda *_: untrained("rcnn", "none", "box"))
    file = tmp_path / "detector.pt2"
    assert export_run("run", file, size=(60, 90), score_threshold=0.2)[0].startswith("60x90: ")
    with pytest.raises(Exception, match="60"):
        open_program(file, ".pt2")(torch.zeros(61, 90, 3, dtype=torch.uint8))


def test_backbone_alone(trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write, "open_run", lambda *_: trained)
    file = tmp_path / "backbone.onnx"
    export_run("run", file, part="backbone")
    images = torch.randn(3, 3, 64, 160)
    with torch.no_grad():
        expected = trained.model.backbone.bottom_up(images)
    for found, level in zip(open_program(file, ".onnx")(images), expected.values(), strict=True):
        torch.testing.assert_close(found, level, rtol=1e-3, atol=1e-4)


def test_merged_weights_are_a_run(tiny_run: Path, tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    export_run(tiny_run, file)
    original, again = open_run(tiny_run, device="cpu"), open_run(file, device="cpu")
    state = original.model.state_dict()
    assert all(torch.equal(x, state[name]) for name, x in again.model.state_dict().items())
    assert again.labels == original.labels
    with safe_open(file, framework="pt") as opened:
        assert json.loads(opened.metadata()["classes"]) == original.labels["classes"]
    export_run(file, tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").stat().st_size == file.stat().st_size


def test_file_that_disagrees_is_not_left(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = [torch.zeros(0, 4), torch.zeros(0, dtype=torch.long), torch.zeros(0), torch.zeros(0, 9, 9) > 0]
    monkeypatch.setattr(write, "open_run", lambda *_: trained)
    monkeypatch.setattr(write, "trace", lambda *_: None)
    monkeypatch.setattr(write, "save_program", lambda traced, file, *_: file.write_text("x"))
    monkeypatch.setattr(write, "open_program", lambda *_: lambda x: nothing)
    with pytest.raises(ConfigError, match="does not agree with the detector: 240x320"):
        export_run("run", tmp_path / "x.pt2", score_threshold=0.01)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("output", "options", "reason"),
    [
        ("x.pth", {}, r"one of \.pt2, \.onnx, \.safetensors"),
        ("no/x.pt2", {}, "in a folder that exists"),
        ("x.pt2", {"part": "backbone"}, r"exported to \.onnx"),
        ("x.onnx", {"part": "neck"}, "--part neck: one of detector, backbone"),
        ("x.onnx", {"score_threshold": 1.5}, "at least 0 and less than 1"),
        ("x.safetensors", {"size": (64, 64)}, "weights have no --size"),
        ("x.onnx", {"size": (1, 64)}, "at least 2 pixels"),
        ("x.onnx", {"images": ["no.jpg"]}, r"no\.jpg: no such file"),
    ],
)
def test_mistakes_are_told_before_anything_is_read(
    output: str, options: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=reason):
        export_run("no run", tmp_path / output, **options)


def test_missing_packages_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"onnxruntime: pip install 'd2timm\[onnx\]'"):
        export_run("no run", tmp_path / "x.onnx")


def test_command(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "weights.safetensors"
    monkeypatch.setattr(sys, "argv", ["export.py", "--run", str(tiny_run), "--output", str(file)])
    assert load("export").main() == 0
    assert "all as in" in capsys.readouterr().out
    assert file.is_file()


def test_command_tells_mistakes_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        sys, "argv", ["export.py", "--run", str(tmp_path / "no"), "--output", "x.safetensors"]
    )
    assert load("export").main() == 2
    told = capsys.readouterr().err
    assert told == f"error: {tmp_path / 'no'}: no such folder of a run\n"
