"""inference/samples.json: what a run writes, and files that others have written."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from helpers.pages import picture, put_samples

from d2timm import ConfigError
from d2timm.runs import samples
from d2timm.runs.samples import FILE, SIDE, Sample, Samples, Shape

BOX = (1.0, 2.0, 3.0, 4.0)


def test_samples_are_read_as_they_were_written(tmp_path: Path) -> None:
    shapes = [Shape(0, BOX), Shape(1, BOX, 0.5, [[1.0, 2.0, 3.0, 2.0, 3.0, 4.0]])]
    written = Samples(["a", "b"], [Sample("x.jpg", 64, 48, picture(), shapes[:1], shapes[1:])])
    written.write(tmp_path)
    assert Samples.read(tmp_path) == written
    assert [path.name for path in (tmp_path / "inference").iterdir()] == ["samples.json"]


def test_run_without_samples(tmp_path: Path) -> None:
    assert Samples.read(tmp_path) is None


def edited(folder: Path, **image: Any) -> Samples | None:
    put_samples(folder, 0.5, colors=("red",))
    content = json.loads((folder / FILE).read_text())
    content["images"][0] |= image
    (folder / FILE).write_text(json.dumps(content))
    return Samples.read(folder)


@pytest.mark.parametrize(
    "image",
    [
        {"jpeg": base64.b64encode(b"<svg onload='alert(1)'/>").decode()},
        {"jpeg": ""},
        {"width": 65},
        {"width": SIDE + 1, "jpeg": base64.b64encode(picture(size=(SIDE + 1, 48))).decode()},
    ],
    ids=["svg", "empty", "other size", "large"],
)
def test_other_images_are_left_out(image: dict[str, Any], tmp_path: Path) -> None:
    read = edited(tmp_path, **image)
    assert read
    assert read.images == []


def test_shapes_of_unknown_classes_are_left_out(tmp_path: Path) -> None:
    shapes = [{"label": label, "box": BOX, "score": 0.5} for label in (-1, 0, 1, 2)]
    read = edited(tmp_path, objects=shapes, detections=shapes)
    assert read
    assert [shape.label for shape in read.images[0].objects] == [0, 1]
    assert [shape.label for shape in read.images[0].detections] == [0, 1]


@pytest.mark.parametrize(
    "image",
    [
        {"objects": [{"label": 0, "box": [1, 2, 3]}]},
        {"objects": [{"label": "x", "box": BOX}]},
        {"objects": [{"label": 0, "box": [1, 2, 3, "4"]}]},
        {"name": 5},
        {"jpeg": "%"},
    ],
)
def test_other_values_are_errors_of_one_line(image: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"samples\.json") as caught:
        edited(tmp_path, **image)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{", b"\xff", b"[" * 100_000, b'{"classes": [], "images": [NaN]}']
)
def test_other_files_are_errors_of_one_line(content: bytes, tmp_path: Path) -> None:
    put_samples(tmp_path)
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(ConfigError, match=r"samples\.json"):
        Samples.read(tmp_path)


def test_huge_file_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_samples(tmp_path)
    monkeypatch.setattr(samples, "LARGEST", 10)
    with pytest.raises(ConfigError, match="larger"):
        Samples.read(tmp_path)
