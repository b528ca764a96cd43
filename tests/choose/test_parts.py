"""The parts of a dataset: disjoint, complete, each class in all of them, look-alikes together."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from d2timm import ConfigError
from d2timm.choose.parts import CHOOSE, TEST, TRAIN, divide


def write_image(file: Path, seed: int, brightness: int = 0) -> str:
    """A picture of blurred noise, of which each seed looks different."""
    cells = np.random.default_rng(seed).integers(20, 200, (6, 6, 3), np.uint8)
    Image.fromarray(cells + np.uint8(brightness)).resize((48, 48), Image.Resampling.BICUBIC).save(file)
    return str(file)


def make_coco(folder: Path, copies: int = 0, images: int = 30, offset: int = 0) -> dict[str, Any]:
    """A COCO file with absolute names; the first images have copies that look the same."""
    folder.mkdir(exist_ok=True)
    names = [write_image(folder / f"{offset + n}.png", offset + n) for n in range(images)]
    names += [write_image(folder / f"copy{offset + n}.png", offset + n, 5) for n in range(copies)]
    return {
        "images": [
            {"id": 7 * n + 1, "file_name": name, "height": 48, "width": 48} for n, name in enumerate(names)
        ],
        "annotations": [
            {
                "id": 3 * n + k,
                "image_id": 7 * n + 1,
                "category_id": 1 + (n + k) % 2,
                "bbox": [1, 1, 9, 9],
                "area": 81,
                "iscrowd": 0,
            }
            for n in range(len(names))
            for k in range(2)
        ],
        "categories": [{"id": 1, "name": "one"}, {"id": 2, "name": "two"}],
    }


def files(coco: Any) -> list[str]:
    return [image["file_name"] for image in coco["images"]]


def test_each_image_is_in_one_part_with_its_objects(tmp_path: Path) -> None:
    coco = make_coco(tmp_path)
    parts, _ = divide(coco, None)
    assert sorted(name for part in parts.values() for name in files(part)) == sorted(files(coco))
    assert [len(files(parts[part])) for part in (TRAIN, CHOOSE, TEST)] == [18, 6, 6]
    for part in parts.values():
        images = {image["id"] for image in part["images"]}
        assert Counter(a["image_id"] for a in part["annotations"]) == dict.fromkeys(images, 2)
        assert {a["category_id"] for a in part["annotations"]} == {1, 2}
    assert divide(coco, None) == divide(coco, None)


def test_images_that_look_the_same_are_in_one_part(tmp_path: Path) -> None:
    coco = make_coco(tmp_path, copies=20)
    parts, notes = divide(coco, None)
    part_of = {Path(name).name: part for part, own in parts.items() for name in files(own)}
    assert all(part_of[f"{n}.png"] == part_of[f"copy{n}.png"] for n in range(20))
    assert any("40 images look like" in note for note in notes)


def test_the_split_of_the_user_is_kept(tmp_path: Path) -> None:
    train, val = make_coco(tmp_path / "a"), make_coco(tmp_path / "b", images=12, offset=100)
    parts, _ = divide(train, val)
    assert files(parts[TRAIN]) == files(train)
    assert sorted(files(parts[CHOOSE]) + files(parts[TEST])) == sorted(files(val))
    assert len(files(parts[TEST])) == 6


def test_few_images_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="4 images with objects are too few"):
        divide(make_coco(tmp_path, images=4), None)
