"""Panoptic maps: segment ids from colours, and the class of each pixel."""

from __future__ import annotations

import json
import pickle
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
from d2timm.data.datasets.coco import CocoPanopticDataset
from d2timm.data.datasets.panoptic import PanopticSegments, read_segments, read_semantic
from d2timm.data.paths import Split

PANOPTIC = ["bbox", "segm", "sem_seg", "panoptic_seg"]


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Split:
    """A small COCO validation split."""
    published.coco(tmp_path)
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    return CocoPanopticDataset().files("val")


def entries(files: Split, tasks: list[str]) -> list[dict[str, Any]]:
    dataset = CocoPanopticDataset()
    ids = [image["id"] for image in json.loads(files.json.read_text())["images"]]
    segments = PanopticSegments(files, dataset.classes(), dataset.semantic_classes(tasks))
    segments.check(np.array(ids))
    copied = pickle.loads(pickle.dumps(segments))  # as for a worker process
    return [{"image_id": number, **copied.of(number)} for number in ids]


def test_colour_encodes_the_segment_id(tmp_path: Path) -> None:
    file = tmp_path / "map.png"
    cv2.imwrite(str(file), np.array([[[3, 2, 1], [0, 0, 7], [0, 0, 0]]], np.uint8))  # blue, green, red
    assert read_segments(str(file)).tolist() == [[1 + 2 * 256 + 3 * 256**2, 7, 0]]


def test_segments_are_things_or_stuff(files: Split) -> None:
    things, stuff = CocoPanopticDataset().classes(), CocoPanopticDataset().semantic_classes(PANOPTIC)
    infos = [info for entry in entries(files, PANOPTIC) for info in entry["segments_info"]]
    names = {(things if info["isthing"] else stuff)[info["category_id"]] for info in infos}
    assert {"person", "sky-other-merged", "grass-merged"} < names
    for info in infos:
        assert info["label"] == (0 if info["isthing"] else info["category_id"])
    assert sum(info["iscrowd"] for info in infos) == published.COUNTS["val"]


def test_pixel_classes(files: Split) -> None:
    for tasks in (PANOPTIC, ["sem_seg"]):
        names = CocoPanopticDataset().semantic_classes(tasks)
        entry = entries(files, tasks)[0]
        pixels = read_semantic(entry)
        assert (pixels[-4:] == IGNORED).sum() > 0.5 * pixels[-4:].size, "the bottom rows are not annotated"
        seen = {names[number] for number in np.unique(pixels) if number != IGNORED}
        assert {"sky-other-merged", "grass-merged"} < seen
        assert ("things" in seen) == ("panoptic_seg" in tasks)
        assert ("person" in seen) == ("panoptic_seg" not in tasks)
        ids = read_segments(entry["pan_seg_file_name"])
        for info in entry["segments_info"]:
            assert (pixels[ids == info["id"]] == info["label"]).all()


@pytest.mark.parametrize("tasks", [PANOPTIC, ["sem_seg"]], ids=["panoptic", "semantic"])
def test_segments_match_the_drawn_objects(files: Split, tasks: list[str]) -> None:
    things, semantic = CocoPanopticDataset().classes(), CocoPanopticDataset().semantic_classes(tasks)
    known = {category["id"]: category["name"] for category in COCO_CATEGORIES}
    for entry, picture in zip(entries(files, tasks), published.draw("val"), strict=True):
        ids, pixels = read_segments(entry["pan_seg_file_name"]), read_semantic(entry)
        kinds = {info["id"]: info["category_id"] for info in entry["segments_info"] if info["isthing"]}
        for obj in picture.objects:
            name = known[published.COCO_IDS[obj["kind"]]]
            inside = picture.mask(obj) == 1
            segment = np.bincount(ids[inside]).argmax()  # other objects may cover its edges
            assert things[kinds[segment]] == name
            pixel_class = semantic[np.bincount(pixels[inside]).argmax()]
            assert pixel_class == ("things" if tasks == PANOPTIC else name)


def test_label_maps_are_converted_to_classes(tmp_path: Path) -> None:
    file = tmp_path / "labels.png"
    cv2.imwrite(str(file), np.array([[7, 8], [0, 7]], np.uint8))
    classes = [IGNORED] * 256
    classes[7], classes[8] = 0, 1
    entry = {"sem_seg_file_name": str(file), "sem_seg_classes": classes}
    assert read_semantic(entry).tolist() == [[0, 1], [IGNORED, 0]]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda content: content["annotations"].pop(), "image 103 has no panoptic map"),
        (lambda content: content.pop("categories"), "`categories`"),
        (lambda content: content["categories"][90].update(name="tree house"), "'tree house' is not in list"),
        (lambda content: content["annotations"][0]["segments_info"][0].update(category_id=999), "999"),
        (lambda content: content["annotations"][0].pop("file_name"), "`file_name`"),
    ],
)
def test_invalid_content(files: Split, change: Callable[[Any], Any], named: str) -> None:
    assert files.panoptic_json
    content = json.loads(files.panoptic_json.read_text())
    change(content)
    files.panoptic_json.write_text(json.dumps(content))
    with pytest.raises(ConfigError) as caught:
        entries(files, PANOPTIC)
    assert str(caught.value).startswith(str(files.panoptic_json))
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


def test_file_that_is_not_json(files: Split) -> None:
    assert files.panoptic_json
    files.panoptic_json.write_text("{")
    with pytest.raises(ConfigError, match=str(files.panoptic_json)):
        entries(files, PANOPTIC)
