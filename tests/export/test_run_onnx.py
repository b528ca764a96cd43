"""``scripts/run_onnx.py``, with a model that finds the bright half of an image."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from helpers.commands import load, run
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from d2timm.utils.images import read_image


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two objects of fixed boxes and scores, whose masks are where the image's first channel is above 100."""
    constants = {
        "boxes": np.array([[1, 2, 30, 20], [5, 5, 9, 9]], np.float32),
        "classes": np.array([1, 0]),
        "scores": np.array([0.9, 0.2], np.float32),
    }
    nodes = [
        helper.make_node("Constant", [], [name], value=numpy_helper.from_array(value))
        for name, value in constants.items()
    ]
    fixed = {
        "zero": np.array(0),
        "level": np.array(100, np.uint8),
        "first": np.array([0]),
        "two": np.ones((2, 1, 1), bool),
    }
    nodes += [
        helper.make_node("Gather", ["image", "zero"], ["red"], axis=2),
        helper.make_node("Greater", ["red", "level"], ["bright"]),
        helper.make_node("Unsqueeze", ["bright", "first"], ["one"]),
        helper.make_node("And", ["one", "two"], ["masks"]),
    ]
    graph = helper.make_graph(
        nodes,
        "bright",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["h", "w", 3])],
        [
            helper.make_tensor_value_info("boxes", TensorProto.FLOAT, ["n", 4]),
            helper.make_tensor_value_info("classes", TensorProto.INT64, ["n"]),
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n"]),
            helper.make_tensor_value_info("masks", TensorProto.BOOL, ["n", "h", "w"]),
        ],
        [numpy_helper.from_array(value, name) for name, value in fixed.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    helper.set_model_props(made, {"classes": json.dumps(["cat", "dog"])})
    file = tmp_path_factory.mktemp("model") / "bright.onnx"
    onnx.save(made, file)
    return file


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """40 x 30 pixels, the right half bright; lying on its side, as its EXIF says."""
    pixels = np.zeros((30, 40, 3), np.uint8)
    pixels[:, 20:] = 200
    file = tmp_path / "photo.png"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).rotate(90, expand=True).save(file, exif=exif)
    return file


def test_objects_are_told_and_drawn(model: Path, photo: Path, tmp_path: Path) -> None:
    found = run("run_onnx", str(model), str(photo), "--output", str(tmp_path / "out"))
    assert found.returncode == 0, found.stderr
    first, second = found.stdout.splitlines()
    assert first.startswith(f"{photo}: 1 objects")
    assert second.split() == ["dog", "0.900", "[1.0,", "2.0,", "30.0,", "20.0]"]
    picture = np.asarray(Image.open(tmp_path / "out" / "photo.png"))
    assert picture.shape == (30, 40, 3)
    assert (picture[25, 5] == 0).all()  # upright, and no mask there
    assert len(set(picture[25, 35].tolist())) > 1  # coloured


def test_lower_threshold_shows_more(model: Path, photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = load("run_onnx")
    session, classes = script.open_model(model)
    assert classes == ["cat", "dog"]
    found = script.detect(session, script.read(photo), 0.1)
    assert found["masks"].shape == (2, 30, 40)
    assert script.draw(script.read(photo), found, classes).size == (40, 30)
    none = script.detect(session, script.read(photo), 0.95)
    assert none["boxes"].shape == (0, 4)
    assert np.array_equal(np.asarray(script.draw(script.read(photo), none, classes)), script.read(photo))


def test_broken_image_does_not_stop_the_others(
    model: Path,
    photo: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_text("no image")
    out = tmp_path / "out"
    arguments = [
        str(model),
        str(broken),
        str(photo),
        str(photo),
        str(tmp_path / "no.jpg"),
        "--output",
        str(out),
    ]
    monkeypatch.setattr(sys, "argv", ["run_onnx.py", *arguments])
    assert load("run_onnx").main() == 1
    told = capsys.readouterr()
    assert told.err.count("error: ") == 2
    assert told.out.count("1 objects") == 2
    assert sorted(file.name for file in out.iterdir()) == ["photo.png", "photo_2.png"]


@pytest.mark.parametrize("content", [None, b"no model"])
def test_what_is_no_model_is_told(
    content: bytes | None,
    tmp_path: Path,
    photo: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "model.onnx"
    if content:
        file.write_bytes(content)
    monkeypatch.setattr(sys, "argv", ["run_onnx.py", str(file), str(photo)])
    assert load("run_onnx").main() == 2
    told = capsys.readouterr().err
    assert told.startswith(f"error: {file}: ")
    assert told.count("\n") == 1


def test_it_needs_neither_torch_nor_this_package() -> None:
    text = (Path(__file__).parents[2] / "scripts" / "run_onnx.py").read_text()
    assert "import torch" not in text
    assert "d2timm" not in text.replace("d2timm[", "")


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "I;16", "1"])
def test_images_are_read_as_by_the_predictor(mode: str, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 3), np.uint8)
    if mode == "I;16":
        image = Image.fromarray(257 * pixels[..., 0].astype(np.uint16))
    else:
        image = Image.fromarray(pixels).convert(mode)
    image.save(tmp_path / "image.png")
    expected = read_image(tmp_path / "image.png", "RGB")
    assert np.array_equal(load("run_onnx").read(tmp_path / "image.png"), expected)
