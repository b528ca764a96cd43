"""Exported files: their results, their metadata, and the errors of exporting."""

from __future__ import annotations

import json
import resource
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.exports import picture, untrained
from safetensors import safe_open

from d2timm import ConfigError
from d2timm.cli import main, run_onnx
from d2timm.config import lazy as config
from d2timm.export import export
from d2timm.export.export import export_run
from d2timm.export.formats import open_program
from d2timm.export.verify import compare, reference_result
from d2timm.inference.trained import Trained, open_run

pytestmark = pytest.mark.slow

SIZES = [(64, 64), (130, 70), (40, 200)]
NAMES = ("boxes", "classes", "scores", "masks")


@pytest.fixture(scope="module")
def trained() -> Trained:
    return untrained("rcnn", "fpn", "mask", "model.backbone.in_features=[res4,res5]")


@pytest.fixture(scope="module")
def onnx_file(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Mask R-CNN as an ONNX file for images of any size."""
    file = tmp_path_factory.mktemp("onnx") / "detector.onnx"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "open_run", lambda *_: trained)
        patch.setattr(export, "NOISE", SIZES[:1])
        lines = export_run("run", file, score_threshold=0.2)
    assert len(lines) == 1
    assert lines[0].startswith("64x64: ")
    return file


def test_onnx_detects_the_same_objects(trained: Trained, onnx_file: Path) -> None:
    program = open_program(onnx_file, ".onnx")
    counts = []
    for size in SIZES:
        image = picture(*size)
        expected = reference_result(trained, image, 0.2)
        outputs = [x.numpy() for x in program(torch.from_numpy(image))]
        difference = compare(expected, dict(zip(NAMES, outputs, strict=True)))
        assert difference.unmatched == 0
        assert difference.boxes < 0.01
        assert difference.scores < 1e-4
        assert difference.pixels <= 1e-3 * difference.area
        counts.append(difference.objects)
    assert max(counts) > 2


def test_onnx_has_config_and_class_names(trained: Trained, onnx_file: Path) -> None:
    session, classes = run_onnx.open_model(onnx_file)
    assert classes == trained.labels["classes"]
    metadata = session.get_modelmeta().custom_metadata_map
    assert config.parse(metadata["config"], "x").model.roi_heads.mask_in_features
    assert json.loads(metadata["labels"])["classes"] == classes
    assert float(metadata["score_threshold"]) == 0.2
    assert [output.name for output in session.get_outputs()] == list(NAMES)


def test_onnx_of_an_image_without_objects(onnx_file: Path, trained: Trained) -> None:
    program = open_program(onnx_file, ".onnx")
    image = np.zeros((70, 60, 3), np.uint8)
    expected = reference_result(trained, image, 0.2)
    outputs = dict(zip(NAMES, (x.numpy() for x in program(torch.from_numpy(image))), strict=True))
    assert compare(expected, outputs).unmatched == 0
    assert outputs["masks"].shape == (len(expected["boxes"]), 70, 60)


def test_torch_export_of_a_dense_detector(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dense = untrained("retinanet", "none", "none")
    monkeypatch.setattr(export, "open_run", lambda *_: dense)
    file = tmp_path / "detector.pt2"
    export_run("run", file, score_threshold=0.01)
    extra = {"classes": "", "config": ""}
    with file.open("rb") as opened:
        torch.export.load(opened, extra_files=extra)
    assert json.loads(extra["classes"]) == dense.labels["classes"]
    program = open_program(file, ".pt2")
    objects = 0
    for size in SIZES:
        image = picture(*size)
        outputs = [x.numpy() for x in program(torch.from_numpy(image))]
        difference = compare(reference_result(dense, image, 0.01), dict(zip(NAMES, outputs, strict=False)))
        assert (difference.unmatched, difference.boxes, difference.scores) == (0, 0, 0)
        objects += difference.objects
    assert objects > 2
    assert len(program(torch.zeros(50, 40, 3, dtype=torch.uint8))) == 3


def test_one_size_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "open_run", lambda *_: untrained("rcnn", "none", "box"))
    file = tmp_path / "detector.pt2"
    assert export_run("run", file, size=(60, 90), score_threshold=0.2)[0].startswith("60x90: ")
    with pytest.raises(Exception, match="60"):
        open_program(file, ".pt2")(torch.zeros(61, 90, 3, dtype=torch.uint8))


def test_backbone_alone(trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "open_run", lambda *_: trained)
    file = tmp_path / "backbone.onnx"
    export_run("run", file, part="backbone")
    images = torch.randn(3, 3, 64, 160)
    with torch.no_grad():
        expected = trained.model.backbone.bottom_up(images)
    for output, level in zip(open_program(file, ".onnx")(images), expected.values(), strict=True):
        torch.testing.assert_close(output, level, rtol=1e-3, atol=1e-4)


def test_exported_weights_open_like_a_run(tiny_run: Path, tmp_path: Path) -> None:
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


def test_file_that_disagrees_is_not_left_behind(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = [torch.zeros(0, 4), torch.zeros(0, dtype=torch.long), torch.zeros(0), torch.zeros(0, 9, 9) > 0]
    monkeypatch.setattr(export, "open_run", lambda *_: trained)
    monkeypatch.setattr(export, "trace", lambda *_: None)
    monkeypatch.setattr(export, "save_program", lambda traced, file, *_: file.write_text("x"))
    monkeypatch.setattr(export, "open_program", lambda *_: lambda x: nothing)
    with pytest.raises(ConfigError, match=r"x\.pt2: .*does not agree .*240x320"):
        export_run("run", tmp_path / "x.pt2", score_threshold=0.01)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("output", "options", "reason"),
    [
        ("x.pth", {}, r"x\.pth: .*\.pt2, \.onnx, \.safetensors"),
        ("no/x.pt2", {}, r"no/x\.pt2: .*existing folder"),
        ("x.pt2", {"part": "backbone"}, r"--part backbone: .*\.onnx"),
        ("x.onnx", {"part": "neck"}, "--part neck: .*detector, backbone"),
        ("x.onnx", {"score_threshold": 1.5}, "--score-threshold 1.5: "),
        ("x.safetensors", {"size": (64, 64)}, r"x\.safetensors: --size"),
        ("x.onnx", {"size": (1, 64)}, "--size 1x64: .*2 pixels"),
        ("x.onnx", {"images": ["no.jpg"]}, r"no\.jpg: no such file"),
    ],
)
def test_invalid_arguments_are_an_error_before_the_run_is_opened(
    output: str, options: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=reason):
        export_run("no run", tmp_path / output, **options)


@pytest.mark.sampled("export", every=3)
@pytest.mark.parametrize("suffix", [".pt2", ".onnx", ".safetensors"])
def test_full_disk_is_an_error_and_leaves_nothing(suffix: str, tiny_run: Path, tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    earlier = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(ConfigError, match=rf"x\{suffix} cannot be written: "):
            export_run(tiny_run, tmp_path / f"x{suffix}", size=None if suffix == ".safetensors" else (64, 64))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, earlier)
    assert not list(tmp_path.iterdir())


def test_missing_packages_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"onnxruntime: pip install 'd2timm\[onnx\]'"):
        export_run("no run", tmp_path / "x.onnx")


def test_command(tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "weights.safetensors"
    assert main(["export", "--run", str(tiny_run), "--output", str(file)]) == 0
    assert str(tiny_run / "model_final.pth") in capsys.readouterr().out
    assert file.is_file()


def test_mistake_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "--run", str(tmp_path / "no"), "--output", "x.safetensors"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {tmp_path / 'no'}: ")
    assert error.count("\n") == 1
