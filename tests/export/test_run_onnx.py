"""``d2timm run-onnx``, with a model that marks the bright half of an image."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from d2timm.cli import main, run_onnx
from d2timm.utils.images import read_image

SCRIPT = Path(str(run_onnx.__file__))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two objects with fixed boxes and scores, whose masks are the pixels with a red channel above 100."""
    outputs = {
        "boxes": np.array([[1, 2, 30, 20], [5, 5, 9, 9]], np.float32),
        "classes": np.array([1, 0]),
        "scores": np.array([0.9, 0.2], np.float32),
    }
    nodes = [
        helper.make_node("Constant", [], [name], value=numpy_helper.from_array(value))
        for name, value in outputs.items()
    ]
    constants = {
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
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    helper.set_model_props(proto, {"classes": json.dumps(["cat", "dog"])})
    file = tmp_path_factory.mktemp("model") / "bright.onnx"
    onnx.save(proto, file)
    return file


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """40 x 30 pixels, the right half bright; stored rotated, with the EXIF orientation to undo it."""
    pixels = np.zeros((30, 40, 3), np.uint8)
    pixels[:, 20:] = 200
    file = tmp_path / "photo.png"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).rotate(90, expand=True).save(file, exif=exif)
    return file


def check_printed_and_drawn(printed: str, photo: Path, output: Path) -> None:
    first, second = printed.splitlines()
    assert first.startswith(f"{photo}: 1 objects")
    assert second.split() == ["dog", "0.900", "[1.0,", "2.0,", "30.0,", "20.0]"]
    picture = np.asarray(Image.open(output / "photo.png"))
    assert picture.shape == (30, 40, 3)
    assert (picture[25, 5] == 0).all()  # upright, and without a mask there
    assert len(set(picture[25, 35].tolist())) > 1  # coloured


def test_objects_are_printed_and_drawn(
    model: Path, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run-onnx", str(model), str(photo), "--output", str(tmp_path / "out")]) == 0
    check_printed_and_drawn(capsys.readouterr().out, photo, tmp_path / "out")


def test_copy_of_the_file_runs_by_itself(model: Path, photo: Path, tmp_path: Path) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    shutil.copy(SCRIPT, folder)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-I", "-X", "importtime", SCRIPT.name, str(model), str(photo)]
    done = subprocess.run(
        [*command, "--output", "out"], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    check_printed_and_drawn(done.stdout, photo, folder / "out")
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "numpy" in imported
    assert not {"torch", "d2timm"} & imported


def test_file_imports_three_packages_only() -> None:
    modules = set()
    for node in ast.walk(ast.parse(SCRIPT.read_text())):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            modules.add(str(node.module))
    packages = {module.partition(".")[0] for module in modules} - set(sys.stdlib_module_names)
    assert packages == {"numpy", "PIL", "onnxruntime"}


def test_lower_threshold_shows_more(model: Path, photo: Path) -> None:
    session, classes = run_onnx.open_model(model)
    assert classes == ["cat", "dog"]
    image = run_onnx.read(photo)
    both = run_onnx.detect(session, image, 0.1)
    assert both["masks"].shape == (2, 30, 40)
    assert run_onnx.draw(image, both, classes).size == (40, 30)
    none = run_onnx.detect(session, image, 0.95)
    assert none["boxes"].shape == (0, 4)
    assert np.array_equal(np.asarray(run_onnx.draw(image, none, classes)), image)


def test_broken_image_does_not_stop_the_others(
    model: Path, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken, missing, output = tmp_path / "broken.jpg", tmp_path / "no.jpg", tmp_path / "out"
    broken.write_text("not an image")
    images = [str(file) for file in (broken, photo, photo, missing)]
    assert main(["run-onnx", str(model), *images, "--output", str(output)]) == 1
    printed = capsys.readouterr()
    assert printed.err.count("error: ") == 2
    assert printed.out.count("1 objects") == 2
    assert sorted(file.name for file in output.iterdir()) == ["photo.png", "photo_2.png"]


@pytest.mark.parametrize("content", [None, b"not a model"])
def test_file_that_is_not_a_model_is_an_error(
    content: bytes | None, tmp_path: Path, photo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "model.onnx"
    if content:
        file.write_bytes(content)
    assert main(["run-onnx", str(file), str(photo)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {file}: ")
    assert error.count("\n") == 1


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "I;16", "1"])
def test_images_are_read_as_by_the_predictor(mode: str, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 3), np.uint8)
    if mode == "I;16":
        image = Image.fromarray(257 * pixels[..., 0].astype(np.uint16))
    else:
        image = Image.fromarray(pixels).convert(mode)
    image.save(tmp_path / "image.png")
    expected = read_image(tmp_path / "image.png", "RGB")
    assert np.array_equal(run_onnx.read(tmp_path / "image.png"), expected)
