"""Panoptic maps: colours are numbers of segments, which say what each pixel is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from detectron2.data.datasets.builtin_meta import COCO_CATEGORIES
from helpers import published

from d2timm import ConfigError
from d2timm.data.datasets.base import IGNORED
from d2timm.data.datasets.coco import CocoPanoptic
from d2timm.data.datasets.panoptic import add_segments, read_segments, read_semantic
from d2timm.data.paths import Split

PANOPTIC = ["bbox", "segm", "sem_seg", "panoptic_seg"]


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Split:
    """A sample of COCO's validation set."""
    published.coco(tmp_path)
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    return CocoPanoptic().files("val")


def entries(files: Split, tasks: list[str]) -> list[dict[str, Any]]:
    dicts = [{"image_id": image["id"]} for image in json.loads(files.json.read_text())["images"]]
    add_segments(dicts, files, CocoPanoptic().classes(), CocoPanoptic().semantic_classes(tasks))
    return dicts


def test_number_of_a_segment_is_its_colour(tmp_path: Path) -> None:
    file = tmp_path / "map.png"
    cv2.imwrite(str(file), np.array([[[3, 2, 1], [0, 0, 7], [0, 0, 0]]], np.uint8))  # blue, green, red
    assert read_segments(str(file)).tolist() == [[1 + 2 * 256 + 3 * 256**2, 7, 0]]


def test_segments_are_of_objects_or_of_stuff(files: Split) -> None:
    things, stuff = CocoPanoptic().classes(), CocoPanoptic().semantic_classes(PANOPTIC)
    told = [info for entry in entries(files, PANOPTIC) for info in entry["segments_info"]]
    kinds = {(things if info["isthing"] else stuff)[info["category_id"]] for info in told}
    assert {"person", "sky-other-merged", "grass-merged"} < kinds
    for info in told:
        assert info["label"] == (0 if info["isthing"] else info["category_id"])
    assert sum(info["iscrowd"] for info in told) == published.COUNTS["val"]


def test_classes_of_pixels(files: Split) -> None:
    for tasks in (PANOPTIC, ["sem_seg"]):
        names = CocoPanoptic().semantic_classes(tasks)
        entry = entries(files, tasks)[0]
        pixels = read_semantic(entry)
        assert (pixels[-4:] == IGNORED).sum() > 0.5 * pixels[-4:].size, "nobody told what is at the bottom"
        seen = {names[number] for number in np.unique(pixels) if number != IGNORED}
        assert {"sky-other-merged", "grass-merged"} < seen
        assert ("things" in seen) == ("panoptic_seg" in tasks)
        assert ("person" in seen) == ("panoptic_seg" not in tasks)
        numbers = read_segments(entry["pan_seg_file_name"])
        for info in entry["segments_info"]:
            assert (pixels[numbers == info["id"]] == info["label"]).all()


@pytest.mark.parametrize("tasks", [PANOPTIC, ["sem_seg"]], ids=["panoptic", "semantic"])
def test_every_object_is_where_it_was_drawn(files: Split, tasks: list[str]) -> None:
    things, semantic = CocoPanoptic().classes(), CocoPanoptic().semantic_classes(tasks)
    known = {category["id"]: category["name"] for category in COCO_CATEGORIES}
    for entry, picture in zip(entries(files, tasks), published.draw("val"), strict=True):
        numbers, pixels = read_segments(entry["pan_seg_file_name"]), read_semantic(entry)
        kinds = {info["id"]: info["category_id"] for info in entry["segments_info"] if info["isthing"]}
        for thing in picture.objects:
            name = known[published.COCO_IDS[thing["kind"]]]
            inside = picture.mask(thing) == 1
            segment = np.bincount(numbers[inside]).argmax()  # others lie over its edges
            assert things[kinds[segment]] == name
            told = semantic[np.bincount(pixels[inside]).argmax()]
            assert told == ("things" if tasks == PANOPTIC else name)


def test_labels_that_a_set_gives_classes(tmp_path: Path) -> None:
    file = tmp_path / "labels.png"
    cv2.imwrite(str(file), np.array([[7, 8], [0, 7]], np.uint8))
    classes = [IGNORED] * 256
    classes[7], classes[8] = 0, 1
    entry = {"sem_seg_file_name": str(file), "sem_seg_classes": classes}
    assert read_semantic(entry).tolist() == [[0, 1], [IGNORED, 0]]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda content: content["annotations"].pop(), "image 103 has no panoptic map"),
        (lambda content: content.pop("categories"), "KeyError('categories')"),
        (lambda content: content["categories"][90].update(name="tree house"), "'tree house' is not in list"),
        (lambda content: content["annotations"][0]["segments_info"][0].update(category_id=999), "999"),
        (lambda content: content["annotations"][0].pop("file_name"), "KeyError('file_name')"),
    ],
)
def test_other_content_is_told(files: Split, change: Callable[[Any], Any], told: str) -> None:
    assert files.panoptic_json
    content = json.loads(files.panoptic_json.read_text())
    change(content)
    files.panoptic_json.write_text(json.dumps(content))
    with pytest.raises(ConfigError) as caught:
        entries(files, PANOPTIC)
    assert str(caught.value).startswith(str(files.panoptic_json))
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_file_that_is_no_json(files: Split) -> None:
    assert files.panoptic_json
    files.panoptic_json.write_text("{")
    with pytest.raises(ConfigError, match="is not in COCO's panoptic format"):
        entries(files, PANOPTIC)
