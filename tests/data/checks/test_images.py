"""Images of a COCO file: which can be used, and what is found about them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.reading import write_image
from PIL import Image

from d2timm.data.checks.findings import Findings
from d2timm.data.checks.images import CheckedImage, check_images
from d2timm.data.checks.orientation import Turn

LARGE = 10**6


def rotated(file: Path, orientation: int = 6) -> Path:
    """An image that is shown as 40x20."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return write_image(file, (20, 40), exif=exif)


def check(
    images: list[dict[str, Any]], folder: Path, boxes: Any = (), max_pixels: int = LARGE
) -> tuple[dict[int, CheckedImage], dict[str, list[str]]]:
    """Check images; boxes are those of the objects of each image."""
    findings = Findings()
    found = [(folder / image.get("file", image["file_name"]), "file" in image) for image in images]
    annotations = {index: [{"bbox": box} for box in own] for index, own in enumerate(boxes)}
    return check_images(images, found, annotations, max_pixels, findings), findings.samples


def test_image_that_can_be_used(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png")
    checked, samples = check([{"file_name": "a.png", "width": 40, "height": 20}], tmp_path)
    assert checked == {0: CheckedImage("a.png", tmp_path / "a.png", Turn(1, (40, 20)), (40, 20))}
    assert samples == {}


def test_images_that_cannot_be_used(tmp_path: Path) -> None:
    write_image(tmp_path / "good.png")
    write_image(tmp_path / "large.png", (50, 30))
    write_image(tmp_path / "other.png", (40, 30))
    rotated(tmp_path / "rotated.jpg")
    (tmp_path / "text.jpg").write_text("text")
    noise = np.random.default_rng(0).integers(0, 255, (90, 12, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "cut.png")
    cut = (tmp_path / "cut.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(cut[: len(cut) // 2])
    size = {"width": 40, "height": 20}
    names = ["missing.png", "text.jpg", "cut.png", "large.png", "other.png", "good.png"]
    images = [{"file_name": name, **size} for name in names]
    checked, samples = check(
        [*images, {"file_name": "rotated.jpg", "width": 41, "height": 20}], tmp_path, (), 1200
    )
    assert set(checked) == {5}
    assert samples["missing_image"] == ["missing.png"]
    assert samples["unreadable_image"] == ["text.jpg: Pillow does not know its format"]
    assert samples["truncated_image"][0].startswith("cut.png: ")
    assert samples["too_large_image"] == ["large.png: 50x30 pixels"]
    assert samples["other_size"] == [
        "other.png: 40x20 in the annotations, but the file has 40x30",
        "rotated.jpg: 41x20 in the annotations, but the file has 40x20 as shown; EXIF orientation 6",
    ]
    assert len(samples) == 5


@pytest.mark.parametrize(
    "size", [{}, {"width": 40}, {"width": None, "height": 20}, {"width": 0, "height": "x"}]
)
def test_size_of_the_file_replaces_a_missing_one(tmp_path: Path, size: dict[str, Any]) -> None:
    write_image(tmp_path / "a.png")
    checked, samples = check([{"file_name": "a.png", **size}], tmp_path)
    assert checked[0].size == (40, 20)
    assert samples == {"size_from_file": ["a.png"]}


@pytest.mark.parametrize(
    ("size", "box", "stored", "kinds"),
    [
        ((40, 20), [5, 5, 5, 5], False, set()),
        ((20, 40), [5, 5, 5, 5], True, {"stored_orientation"}),
        ((20, 40), [30, 5, 5, 5], False, {"stored_size"}),
        ((40, 20), [5, 30, 5, 5], True, {"stored_orientation"}),
        ((None, None), [5, 5, 5, 5], False, {"size_from_file", "ambiguous_orientation"}),
        ((None, None), [5, 30, 5, 5], True, {"size_from_file", "stored_orientation"}),
    ],
)
def test_rotated_photograph(tmp_path: Path, size: Any, box: Any, stored: bool, kinds: set[str]) -> None:
    rotated(tmp_path / "a.jpg")
    image = {"file_name": "a.jpg", "width": size[0], "height": size[1]}
    checked, samples = check([image], tmp_path, [[box]])
    assert checked[0].turn == Turn(6 if stored else 1, (40, 20))
    assert checked[0].size == ((20, 40) if stored else (40, 20))
    assert samples == {kind: ["a.jpg"] for kind in kinds}


def test_further_findings(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((20, 40), np.uint16)).save(tmp_path / "deep.png")
    frames = [Image.new("L", (40, 20), value) for value in (0, 255)]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    size = {"width": 40, "height": 20}
    names = ["deep.png", "moving.gif", "deep.png"]
    images = [{"file_name": name, **size} for name in names]
    checked, samples = check([*images, {"file_name": "C:\\deep.png", "file": "deep.png", **size}], tmp_path)
    assert len(checked) == 4
    assert [sample.partition(":")[0] for sample in samples.pop("high_depth")] == ["deep.png", "deep.png", "C"]
    assert samples == {
        "animation": ["moving.gif"],
        "moved_image": [f"C:\\deep.png: {tmp_path / 'deep.png'}"],
        "repeated_file": ["deep.png", "C:\\deep.png"],
    }
